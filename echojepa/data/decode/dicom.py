"""Multi-frame ultrasound DICOM, 8 bits per sample, frame by frame through pydicom.

Only pixels and the frame rate are taken; no header text leaves this file. De-identification and
sector masking belong to ingest.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pydicom
from pydicom.encaps import generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.pixels import iter_pixels
from pydicom.pixels.utils import get_expected_length

from echojepa.data.decode.video import Frames, Source
from echojepa.errors import ClipError

_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def probe(source: Source) -> tuple[int, float, int, int]:
    """Number of frames, frames per second, height, width.

    The rate is FrameTime, else CineRate, else RecommendedDisplayFrameRate (DICOM PS3.3 C.7.6.5);
    a still without any of them counts as one frame per second.
    """
    header, num_frames = _header(source)
    try:
        rate = float(header.get("CineRate") or header.get("RecommendedDisplayFrameRate") or 0.0)
        if header.get("FrameTime"):
            rate = 1000.0 / float(header.FrameTime)
        height, width = int(header.Rows), int(header.Columns)
        num_found = _count_frames(source, num_frames)
    except (AttributeError, TypeError, ValueError, struct.error) as error:
        raise ClipError("open", "not_a_video", f"pydicom: {type(error).__name__}") from None
    if not rate and num_frames > 1:
        raise ClipError("open", "no_frame_rate", "no FrameTime, CineRate or display rate")
    if num_found < num_frames:
        raise ClipError("decode", "truncated", f"{num_found} of {num_frames} frames are there")
    return num_frames, rate or 1.0, height, width


def _count_frames(source: Source, num_promised: int) -> int:
    """Count the frames that are there, without decoding them."""
    data, _ = _header(source, pixels=True)
    pixels = data.get("PixelData")  # pydicom drops encapsulated pixels whose end is missing
    if not pixels:
        return 0
    if data.file_meta.TransferSyntaxUID.is_encapsulated:
        return sum(1 for _ in generate_frames(pixels, number_of_frames=num_promised))
    whole = get_expected_length(data)
    return num_promised if len(pixels) >= whole else len(pixels) * num_promised // whole


def read(source: Source, indices: Sequence[int], num_promised: int) -> Frames:
    """Frames by index as RGB; see `decode.read_frames`."""
    header, num_frames = _header(source)
    needed = max(num_promised, max(indices) + 1)
    if num_frames < needed:
        raise ClipError("decode", "truncated", f"{num_frames} of {needed} frames are there")
    photometric = str(header.get("PhotometricInterpretation", ""))
    if header.get("BitsAllocated") != 8 or photometric not in (*_COLOUR, "MONOCHROME2"):
        raise ClipError("decode", "unsupported", f"{photometric}, not 8-bit RGB, YBR or grey")
    unique = sorted(set(indices))
    try:
        pixels = list(iter_pixels(source, indices=unique))
    except (AttributeError, OSError, RuntimeError, ValueError, NotImplementedError) as error:
        raise ClipError("decode", "damaged", f"pydicom: {type(error).__name__}") from None
    frames = dict(zip(unique, pixels, strict=True))
    stacked = np.stack([frames[i] for i in indices])
    return stacked if stacked.ndim == 4 else np.repeat(stacked[..., None], 3, axis=-1)


def _header(source: Source, *, pixels: bool = False) -> tuple[Any, int]:
    """The data set, by default up to its pixels, and the number of frames it promises."""
    if not isinstance(source, str):
        source.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they name the file and quote the header
            header = pydicom.dcmread(source, stop_before_pixels=not pixels)
            return header, int(header.get("NumberOfFrames") or 1)
    except FileNotFoundError:
        raise ClipError("open", "missing", "no such file") from None
    except (InvalidDicomError, OSError, EOFError, TypeError, ValueError) as error:
        raise ClipError("open", "not_a_video", f"pydicom: {type(error).__name__}") from None
