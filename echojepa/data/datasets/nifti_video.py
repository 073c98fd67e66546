"""A NIfTI sequence of grey pictures as a lossless video: FFV1 in MP4.

A video of grey values (FFV1, one keyframe a frame, checksums) comes back from every decoder of
`decode` as it was; H.264 without loss is larger, slower, and its grey values are stretched on the
way to RGB. MP4 keeps frame times exactly, where Matroska rounds them to milliseconds.

Orientation: the first axis of CAMUS's arrays runs across the picture, the second into depth, the
third in time, so every frame is transposed and none is mirrored, as ITK reads these files.

Pixels that are not square stay as they are: the file says how wide they are, and whoever reads it
gets square ones (`decode.picture`: the shorter side is made longer, nothing is made smaller).
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from echojepa.data.decode.frames import ReadConfig
from echojepa.data.decode.picture import check_aspect
from echojepa.data.decode.source import fetch
from echojepa.data.encode import VideoFormat, encode_video
from echojepa.errors import ClipError, ConfigError, StorageError

ROUNDED = "grey values were rounded to whole numbers"
_GZIP = b"\x1f\x8b"
_MOST_GREY = 255
_SAME_SIDES = 0.001
_FFV1 = {"level": "3", "g": "1", "slicecrc": "1"}


class GreySequence(NamedTuple):
    """What a NIfTI file shows."""

    frames: NDArray[np.uint8]
    """Grey values, [T, H, W]."""
    aspect: Fraction
    """Width over height of one pixel."""
    is_rounded: bool
    """Whether grey values were not whole numbers."""


def require_nibabel() -> None:
    """Raise `ConfigError` unless NIfTI files can be read."""
    if find_spec("nibabel") is None:
        raise ConfigError("NIfTI files need nibabel", "Install it: pip install 'echojepa[camus]'.")


def convert(source: str, target: Path, fps: float, how: ReadConfig) -> tuple[str, ...]:
    """Write a NIfTI file as a video; a video of that name is replaced. Returns what to note.

    Args:
        source: path or URL of the NIfTI file.
        fps: frames per second.

    Raises:
        ClipError: as `read_sequence` and `decode.source.fetch`.
        StorageError: the storage of either fails.
    """
    sequence = read_sequence(fetch(source, how.patience_seconds).content)
    video = lossless_video(sequence.frames, fps, sequence.aspect)
    partial = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(video)
        partial.replace(target)
    except OSError as error:
        raise StorageError(
            f"no video can be written: {error.strerror}",
            "Make room, or name another OUT.",
            str(target.parent),
        ) from None
    return (ROUNDED,) if sequence.is_rounded else ()


def read_sequence(content: bytes) -> GreySequence:
    """The pictures of a NIfTI file, compressed or not.

    Raises:
        ClipError: stage "open": not_nifti; unsupported: pixels without a size, or not between a
            quarter and four times as wide as high; stage "decode": truncated; unsupported: not one
            grey value from 0 to 255 per pixel and time.
    """
    header, values = _decoded(content)
    if values.ndim != 3 or values.dtype.kind not in "uif" or not values.size:
        what = f"{values.ndim} axes of {values.dtype}, not three of numbers"
        raise ClipError("decode", "unsupported", what)
    whole = np.rint(values)
    if not 0 <= whole.min() <= whole.max() <= _MOST_GREY:  # also where some are not numbers
        raise ClipError("decode", "unsupported", "grey values are not from 0 to 255")
    if whole.max() <= 1:
        raise ClipError("decode", "unsupported", "no grey value is above 1")
    across, down = (float(side) for side in header.get_zooms()[:2])
    if not (across > 0 and down > 0):
        raise ClipError("open", "unsupported", "pixels without a size")
    frames = np.ascontiguousarray(whole.astype(np.uint8).transpose(2, 1, 0))
    return GreySequence(frames, _aspect(across, down), not np.array_equal(whole, values))


def _decoded(content: bytes) -> tuple[Any, NDArray[Any]]:
    """A NIfTI-1 file's header, as it is, and its values. nibabel would repair a wrong header."""
    import nibabel
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    try:
        plain = gzip.decompress(content) if content.startswith(_GZIP) else content
    except (OSError, EOFError, zlib.error) as error:
        raise ClipError("decode", "truncated", f"gzip: {type(error).__name__}") from None
    try:
        header: Any = nibabel.Nifti1Header.from_fileobj(io.BytesIO(plain), check=False)
        shape, offset = header.get_data_shape(), header.get_data_offset()
        num_bytes = math.prod(map(int, shape)) * header.get_data_dtype().itemsize
        header.get_slope_inter()
    except (HeaderDataError, WrapStructError, LookupError, ValueError, OverflowError) as error:
        raise ClipError("open", "not_nifti", f"nibabel: {type(error).__name__}") from None
    if header["sizeof_hdr"] != header.sizeof_hdr or header["magic"] != header.single_magic:
        raise ClipError("open", "not_nifti", "not a single NIfTI-1 file")
    if offset < header.single_vox_offset or min(shape, default=0) < 1:
        raise ClipError("open", "not_nifti", "a header that says nothing of the values")
    if len(plain) < offset + num_bytes:
        raise ClipError("decode", "truncated", f"{len(plain)} of {offset + num_bytes} bytes")
    return header, np.asarray(header.data_from_fileobj(io.BytesIO(plain)))


def _aspect(across: float, down: float) -> Fraction:
    """Pixels whose sides differ by less than a thousandth are square."""
    ratio = across / down
    if abs(ratio - 1) < _SAME_SIDES:
        return Fraction(1)
    return check_aspect(Fraction(ratio).limit_denominator(1000))


def lossless_video(frames: NDArray[np.uint8], fps: float, aspect: Fraction) -> bytes:
    """An MP4 file of grey frames [T, H, W]; the same frames make the same bytes.

    Args:
        fps: frames per second; held as a fraction with a denominator up to 1,001.
        aspect: width over height of one pixel.
    """
    file = io.BytesIO()
    encode_video(frames, fps, file, VideoFormat("mp4", "ffv1", "gray", _FFV1, aspect=aspect))
    return file.getvalue()
