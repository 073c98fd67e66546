"""Multi-frame ultrasound DICOM, 8 bits per sample, frame by frame through pydicom.

Only pixels and times are taken; no header text leaves this file. De-identification and sector
masking belong to ingest.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pydicom
from pydicom.encaps import generate_fragments
from pydicom.errors import InvalidDicomError
from pydicom.pixels import get_decoder, iter_pixels
from pydicom.uid import UID, RLELossless

from echojepa.data.decode.dicom_time import frame_seconds
from echojepa.data.decode.picture import Picture, check_aspect
from echojepa.data.decode.source import Source
from echojepa.data.decode.timeline import Pick, VideoInfo, check_positions, frame_rate
from echojepa.data.decode.video import Frames
from echojepa.errors import ClipError

_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_PICTURE_STARTS = (b"\xff\xd8", b"\xff\x4f")
"""First bytes of a JPEG or JPEG-LS picture, and of a JPEG 2000 one."""
_VIDEO_SYNTAXES = "1.2.840.10008.1.2.4.10"
"""MPEG-2, MPEG-4 and HEVC inside DICOM: 1.2.840.10008.1.2.4.100 to .108 (DICOM PS3.5 8.2.5-8)."""


def is_dicom(content: bytes) -> bool:
    """Whether a file's content is DICOM, whatever its name (DICOM PS3.10 7.1)."""
    return content[128:132] == b"DICM"


def probe(source: Source, modalities: Collection[str]) -> VideoInfo:
    """What the file holds, its frames counted. See `dicom_time` for their times."""
    with _header(source, modalities) as data:
        num_frames = _count_frames(data, source.content)
        seconds = frame_seconds(data, num_frames)
        picture = _picture(data)
        _check_pixels(data)
    rate = frame_rate(seconds, None)
    return VideoInfo(num_frames, rate, float(seconds[-1]) + 1 / rate, *picture.shown)


def read(source: Source, pick: Pick, num_promised: int, modalities: Collection[str]) -> Frames:
    """Frames by time as RGB; see `decode.frames`."""
    with _header(source, modalities) as data:
        num_frames = _count_frames(data, source.content)
        positions = pick(frame_seconds(data, num_frames))
        picture = _picture(data)
        _check_pixels(data)
    check_positions(positions, num_frames, num_promised)
    unique = np.unique(positions)
    try:
        pixels = list(iter_pixels(io.BytesIO(source.content), indices=unique.tolist()))
    except (AttributeError, OSError, RuntimeError, ValueError, NotImplementedError) as error:
        raise ClipError("decode", "damaged", f"pydicom: {type(error).__name__}") from None
    height, width = picture.square
    shown = []
    for frame in pixels:
        rgb = frame if frame.ndim == 3 else np.repeat(frame[..., None], 3, axis=-1)
        if picture.aspect != 1:
            rgb = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_LINEAR)
        shown.append(rgb)
    return np.stack(shown)[np.searchsorted(unique, positions)]


@contextmanager
def _header(source: Source, modalities: Collection[str]) -> Iterator[Any]:
    """All of an ultrasound video before its pixels; wrong fields become `ClipError`s."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they name the file and quote the header
            data = pydicom.dcmread(io.BytesIO(source.content), stop_before_pixels=True)
            _check_kind(data, modalities)
            yield data
    except (
        InvalidDicomError,
        AttributeError,
        OSError,
        EOFError,
        TypeError,
        ValueError,
        struct.error,
    ) as error:
        raise ClipError("open", "not_a_video", f"pydicom: {type(error).__name__}") from None


def _check_kind(data: Any, modalities: Collection[str]) -> None:
    modality = str(data.get("Modality") or "none")
    if modality not in modalities:
        allowed = ", ".join(modalities)
        raise ClipError("open", "not_ultrasound", f"its modality is {modality}, not {allowed}")


def _count_frames(data: Any, content: bytes) -> int:
    """Count the frames that are there, without decoding them; they must be as many as promised."""
    if data.get("Rows") is None or data.get("Columns") is None:
        raise ClipError("open", "not_a_video", "no size of a picture")
    num_promised = int(data.get("NumberOfFrames") or 1)
    whole = pydicom.dcmread(io.BytesIO(content), specific_tags=["PixelData"])
    element: Any = whole.get_item("PixelData") if "PixelData" in whole else None
    pixels = element.value if element is not None else None
    if not pixels:  # pydicom drops encapsulated pixels whose end is missing
        raise ClipError("decode", "truncated", f"0 of {num_promised} frames are there")
    syntax: UID = data.file_meta.TransferSyntaxUID
    if syntax.startswith(_VIDEO_SYNTAXES):
        what = f"{syntax.name} inside DICOM: take the stream out, and store it as MP4"
        raise ClipError("decode", "unsupported", what)
    if syntax.is_encapsulated:
        starts = [bytes(f[:2]) for f in generate_fragments(pixels)][1:]  # the first are offsets
        found = len(starts) if syntax == RLELossless else sum(s in _PICTURE_STARTS for s in starts)
    else:
        samples = int(data.Rows) * int(data.Columns) * int(data.get("SamplesPerPixel") or 1)
        found = len(pixels) // (samples * (int(data.BitsAllocated) // 8))
        if found < num_promised and len(pixels) < element.length:
            what = f"{found} of {num_promised} frames are there"
            raise ClipError("decode", "truncated", what)
    if found != num_promised:
        what = f"the header says {num_promised} frames, and {found} are there"
        raise ClipError("open", "frame_count_mismatch", what)
    return found


def _picture(data: Any) -> Picture:
    """The size, and the shape of pixels: PixelAspectRatio is height, width (PS3.3 C.7.6.3.1.7)."""
    ratio = data.get("PixelAspectRatio") or (1, 1)
    high, wide = (int(part) for part in ratio)
    if min(high, wide) < 1:
        raise ClipError("open", "unsupported", f"a pixel aspect ratio of {high} to {wide}")
    return Picture(int(data.Rows), int(data.Columns), check_aspect(Fraction(wide, high)))


def _check_pixels(data: Any) -> None:
    """Raise `ClipError` unless the pixels can be decoded here."""
    photometric = str(data.get("PhotometricInterpretation", ""))
    if data.get("BitsAllocated") != 8 or photometric not in (*_COLOUR, "MONOCHROME2"):
        raise ClipError("decode", "unsupported", f"{photometric}, not 8-bit RGB, YBR or grey")
    syntax = data.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise ClipError("decode", "unsupported", f"pydicom can't decode {syntax.name}") from None
    if not decoder.is_available:
        needed = "; ".join(decoder.missing_dependencies)
        raise ClipError("decode", "unsupported", f"{syntax.name} needs one of: {needed}")
