"""Multi-frame ultrasound DICOM, 8 bits per sample, frame by frame through pydicom.

Only pixels and the frame rate are taken; no header text leaves this file. De-identification and
sector masking belong to ingest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.pixels import iter_pixels

from echojepa.data.decode_video import Frames, Source
from echojepa.errors import ClipError

_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def probe(source: Source) -> tuple[int, float, int, int]:
    """Number of frames, frames per second, height, width.

    The rate is FrameTime, else CineRate, else RecommendedDisplayFrameRate (DICOM PS3.3 C.7.6.5);
    a still without any of them counts as one frame per second.
    """
    header = _header(source)
    num_frames = int(header.get("NumberOfFrames", 1))
    rate = header.get("CineRate") or header.get("RecommendedDisplayFrameRate")
    if header.get("FrameTime"):
        rate = 1000.0 / float(header.FrameTime)
    if not rate and num_frames > 1:
        raise ClipError("open", "no_frame_rate", "no FrameTime, CineRate or display rate")
    return num_frames, float(rate or 1.0), int(header.Rows), int(header.Columns)


def read(source: Source, indices: Sequence[int], num_promised: int) -> Frames:
    """Frames by index as RGB; see `decode.read_frames`."""
    header = _header(source)
    num_frames = int(header.get("NumberOfFrames", 1))
    if num_frames < max(num_promised, max(indices) + 1):
        raise ClipError("decode", "truncated", f"{num_frames} frames, {num_promised} promised")
    photometric = str(header.get("PhotometricInterpretation", ""))
    if int(header.get("BitsAllocated", 0)) != 8 or photometric not in (*_COLOUR, "MONOCHROME2"):
        raise ClipError("decode", "unsupported", f"{photometric}, not 8-bit RGB, YBR or grey")
    unique = sorted(set(indices))
    try:
        pixels = list(iter_pixels(source, indices=unique))
    except (AttributeError, OSError, RuntimeError, ValueError, NotImplementedError) as error:
        raise ClipError("decode", "damaged", f"pydicom: {type(error).__name__}") from None
    frames = dict(zip(unique, pixels, strict=True))
    stacked = np.stack([frames[i] for i in indices])
    return stacked if stacked.ndim == 4 else np.repeat(stacked[..., None], 3, axis=-1)


def _header(source: Source) -> Any:
    if not isinstance(source, str):
        source.seek(0)
    try:
        return pydicom.dcmread(source, stop_before_pixels=True)
    except FileNotFoundError:
        raise ClipError("open", "missing", "no such file") from None
    except (InvalidDicomError, OSError, EOFError, ValueError) as error:
        raise ClipError("open", "not_a_video", f"pydicom: {type(error).__name__}") from None
