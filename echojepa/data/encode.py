"""Frames to the bytes of a video, through FFmpeg (PyAV).

The bytes depend on nothing but the frames and the settings: one encoding thread, no dates, no
versions of the muxer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import BinaryIO

import av
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class VideoFormat:
    """How pictures become a file."""

    container: str
    codec: str
    pixels: str
    """FFmpeg's name of the pixel format."""
    options: Mapping[str, str]
    """Of the codec."""
    muxing: Mapping[str, str] = field(default_factory=dict)
    """Options of the container."""
    aspect: Fraction = Fraction(1)
    """Width over height of a pixel."""


def encode_video(
    frames: NDArray[np.uint8], fps: float, target: str | BinaryIO, how: VideoFormat
) -> None:
    """Write frames uint8 [T, H, W] or [T, H, W, 3] (RGB) at a constant rate.

    Into the pixel format "gray" only [T, H, W].

    Args:
        fps: frames per second; written as the nearest fraction with a denominator up to 1001.
        target: a path, or a binary file that can seek.

    Raises:
        OSError: the target cannot be written, or the codec does not take such pictures.
    """
    muxing = {"fflags": "+bitexact", **how.muxing}
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(target, "w", format=how.container, options=muxing) as output:
        stream = output.add_stream(
            how.codec, rate=rate, options={**how.options, "flags": "+bitexact"}
        )
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = how.pixels
        stream.thread_count = 1
        if how.aspect != 1:
            stream.sample_aspect_ratio = how.aspect
        for frame in frames:
            output.mux(stream.encode(_picture(frame, how)))
        output.mux(stream.encode(None))


def _picture(frame: NDArray[np.uint8], how: VideoFormat) -> av.VideoFrame:
    """Grey values stay what they are where the file holds grey."""
    if how.pixels == "gray":
        return av.VideoFrame.from_ndarray(frame, format="gray")
    rgb = frame if frame.ndim == 3 else np.repeat(frame[..., None], 3, axis=2)
    return av.VideoFrame.from_ndarray(rgb, format="rgb24")


def with_even_sides(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Frames [T, H, W] or [T, H, W, 3] as H.264 in 4:2:0 takes them.

    An odd side is made even by repeating its last row or column.
    """
    rest = [(0, side % 2) for side in frames.shape[1:3]]
    return np.pad(frames, [(0, 0), *rest, *[(0, 0)] * (frames.ndim - 3)], mode="edge")
