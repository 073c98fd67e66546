"""Frames to a video file: H.264 in MP4 or Motion JPEG in AVI."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from echojepa.data.encode import VideoFormat, encode_video, with_even_sides

_FORMATS = {
    ".mp4": VideoFormat(
        "mp4",
        "libx264",
        "yuv420p",
        {"crf": "20", "g": "16", "bf": "0", "preset": "fast"},
        {"movflags": "+faststart"},
    ),
    ".avi": VideoFormat("avi", "mjpeg", "yuvj420p", {"qmin": "3", "qmax": "3"}),
}
"""By suffix. A short GOP without B-frames seeks fast."""


def write_video(frames: np.ndarray, native_fps: float, path: Path) -> None:
    """Write frames uint8 [T, H, W] or [T, H, W, 3] (RGB) at their native rate.

    The suffix of `path` names the format.

    The file appears under its name only when it is complete.

    Raises:
        OSError: the file cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    encode_video(frames, native_fps, str(partial), _FORMATS[path.suffix])
    partial.replace(path)


def mp4_bytes(frames: np.ndarray, native_fps: float) -> bytes:
    """Frames uint8 [T, H, W] or [T, H, W, 3] (RGB) as the content of an MP4 file that plays.

    An odd side is made even, see `with_even_sides`.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "film.mp4"
        write_video(with_even_sides(frames), native_fps, file)
        return file.read_bytes()
