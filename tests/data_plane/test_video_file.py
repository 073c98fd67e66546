"""Frames to a film: what is written is what a decoder reads."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
from support.pages import decoded

from echojepa.data.video_file import mp4_bytes


@pytest.mark.parametrize("sides", [(32, 48), (33, 48), (32, 49), (33, 49)])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_frames_of_any_size_survive(sides: tuple[int, int], channels: tuple[int, ...]) -> None:
    height, width = sides
    slope = np.linspace(20, 220, width)[None, None] + np.zeros((6, height, 1))
    slope += np.arange(6)[:, None, None] * 5
    frames = slope.astype(np.uint8)
    frames = np.repeat(frames[..., None], 3, axis=3) if channels else frames
    found = decoded(mp4_bytes(frames, 12.0))
    assert found.shape == (6, height + height % 2, width + width % 2, 3)
    wanted = frames if channels else frames[..., None]
    error = np.abs(found[:, :height, :width].astype(float) - wanted)
    assert error.mean() < 3


def test_an_odd_side_repeats_its_last_column() -> None:
    frames = np.full((2, 16, 17), 40, np.uint8)
    frames[:, :, 16] = 200
    found = decoded(mp4_bytes(frames, 10.0)).astype(float)
    assert np.abs(found[:, :, 17] - found[:, :, 16]).mean() < 15
    assert found[:, :, 17].mean() > 150


def test_the_rate_is_kept_and_the_bytes_are_always_the_same() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (9, 32, 32, 3), np.uint8)
    mp4 = mp4_bytes(frames, 12.5)
    with av.open(io.BytesIO(mp4)) as file:
        stream = file.streams.video[0]
        assert (float(stream.average_rate), stream.codec_context.name) == (12.5, "h264")
    assert mp4_bytes(frames, 12.5) == mp4
