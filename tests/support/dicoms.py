"""Copies of a real ultrasound DICOM with other headers or pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset


def with_header(dicom: str, folder: Path, header: dict[str, object], *gone: str) -> Path:
    """A copy of the DICOM with some header fields set and some removed."""
    data = pydicom.dcmread(dicom)
    for keyword, value in header.items():
        setattr(data, keyword, value)
    for keyword in gone:
        if keyword in data:
            delattr(data, keyword)
    path = folder / "hidden.dcm"
    data.save_as(path)
    return path


def uncompressed(dicom: str, pixels: np.ndarray, photometric: str) -> Dataset:
    """A copy of a DICOM with pixels [T, H, W] or [T, H, W, 3] of its own."""
    data = pydicom.dcmread(dicom)
    data.set_pixel_data(pixels, photometric, 8 * pixels.itemsize, generate_instance_uid=False)
    return data
