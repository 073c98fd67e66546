"""Frames to the bytes of a video."""

from __future__ import annotations

import io

import numpy as np
import pytest

from echojepa.data.decode import video
from echojepa.data.decode.source import Source
from echojepa.data.encode import VideoFormat, encode_video

H264 = VideoFormat("mp4", "libx264", "yuv420p", {"crf": "12", "bf": "0"})
MJPEG = VideoFormat("avi", "mjpeg", "yuvj420p", {"qmin": "2", "qmax": "2"})


def encoded(frames: np.ndarray, fps: float, how: VideoFormat) -> Source:
    """The file, in memory."""
    file = io.BytesIO()
    encode_video(frames, fps, file, how)
    return Source(file.getvalue(), None)


def ramps(t: int) -> np.ndarray:
    """Smooth grey frames [T, H, W], each brighter than the last."""
    return np.stack([np.add.outer(np.arange(32), np.arange(48)) + 8 * i for i in range(t)]).astype(
        np.uint8
    )


@pytest.mark.parametrize("how", [H264, MJPEG], ids=["mp4", "avi"])
def test_frames_come_back_at_their_rate(how: VideoFormat) -> None:
    frames = ramps(9)
    file = encoded(frames, 30000 / 1001, how)
    info = video.probe(file)
    assert (info.num_frames, info.height, info.width) == (9, 32, 48)
    assert info.native_fps == pytest.approx(30000 / 1001)
    found = video.read(file, lambda seconds: np.arange(len(seconds)), 9)
    assert np.abs(found.astype(int) - frames[..., None]).max() <= 4


@pytest.mark.parametrize("how", [H264, MJPEG], ids=["mp4", "avi"])
def test_grey_frames_are_those_of_three_equal_channels(how: VideoFormat) -> None:
    frames = ramps(5)
    colours = np.repeat(frames[..., None], 3, axis=3)
    assert encoded(frames, 25.0, how) == encoded(colours, 25.0, how)
