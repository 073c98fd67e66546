"""Frames to a video file: H.264 in MP4 or Motion JPEG in AVI.

The bytes depend on nothing but the frames and the rate: one encoding thread, no dates, no versions
of the muxer.
"""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

_CODECS = {
    ".mp4": ("mp4", "libx264", "yuv420p", {"crf": "20", "g": "16", "bf": "0", "preset": "fast"}),
    ".avi": ("avi", "mjpeg", "yuvj420p", {"qmin": "3", "qmax": "3"}),
}
"""By suffix: container, codec, pixel format, options. A short GOP without B-frames seeks fast."""


def write_video(frames: np.ndarray, native_fps: float, path: Path) -> None:
    """Write frames uint8 [T, H, W] or [T, H, W, 3] (RGB) at their native rate.

    The suffix of `path` names the format.

    The file appears under its name only when it is complete.

    Raises:
        OSError: the file cannot be written.
    """
    container, codec, pixel_format, options = _CODECS[path.suffix]
    partial = path.with_name(f"{path.name}.partial")
    muxing = {"fflags": "+bitexact"} | ({"movflags": "+faststart"} if container == "mp4" else {})
    rate = Fraction(native_fps).limit_denominator(1001)
    with av.open(str(partial), "w", format=container, options=muxing) as output:
        stream = output.add_stream(codec, rate=rate, options={**options, "flags": "+bitexact"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        stream.thread_count = 1
        for frame in frames:
            rgb = frame if frame.ndim == 3 else np.repeat(frame[..., None], 3, axis=2)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        output.mux(stream.encode(None))
    partial.replace(path)


def mp4_bytes(frames: np.ndarray, native_fps: float) -> bytes:
    """Frames uint8 [T, H, W] or [T, H, W, 3] (RGB) as the content of an MP4 file that plays.

    H.264 in 4:2:0 needs even sides: an odd one is made even by repeating its last row or column.
    """
    odd = [side % 2 for side in frames.shape[1:3]]
    if any(odd):
        rest = [(0, 0)] * (frames.ndim - 3)
        frames = np.pad(frames, [(0, 0), *((0, more) for more in odd), *rest], mode="edge")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "film.mp4"
        write_video(frames, native_fps, file)
        return file.read_bytes()
