"""Frames to a multi-frame ultrasound DICOM file, as scanners and archives write them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import cv2
import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

from echojepa.phantom.files.identity import Identity

_ULTRASOUND_MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.3.1"
_JPEG_QUALITY = 92
_TISSUE, _COLOUR_FLOW = 1, 2
_TWO_DIMENSIONAL, _CENTIMETRES = 1, 3
"""Region data types, region spatial format and physical units (DICOM PS3.3, C.8.5.5)."""


@dataclass(frozen=True)
class DicomFacts:
    """What the header says beside the pixels."""

    clip_id: str
    study_id: str
    patient_id: str
    study_date: date
    instance_number: int
    manufacturer: str
    native_fps: float
    pixel_cm: float
    box: tuple[int, int, int, int]
    """First column and row, last column and row of the sector."""
    colour_box: tuple[int, int, int, int] | None
    """The same of the colour Doppler box, or none."""
    identity: Identity | None
    """Planted, or none."""
    compressed: bool
    """JPEG baseline in YBR_FULL_422, or RGB as it is."""


def write_dicom(frames: np.ndarray, facts: DicomFacts, path: Path) -> None:
    """Write frames uint8 [T, H, W] or [T, H, W, 3] (RGB).

    The same frames and facts give the same bytes. The file appears under its name only when it is
    complete.

    Raises:
        OSError: the file cannot be written.
    """
    rgb = frames if frames.ndim == 4 else np.repeat(frames[..., None], 3, axis=3)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = _ULTRASOUND_MULTI_FRAME
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[facts.clip_id])
    meta.TransferSyntaxUID = JPEGBaseline8Bit if facts.compressed else ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    _describe(dataset, facts)
    regions = [_region(facts.box, _TISSUE, facts.pixel_cm)]
    if facts.colour_box is not None:
        regions.append(_region(facts.colour_box, _COLOUR_FLOW, facts.pixel_cm))
    dataset.SequenceOfUltrasoundRegions = Sequence(regions)
    _put_pixels(dataset, rgb, compressed=facts.compressed)
    partial = path.with_name(f"{path.name}.partial")
    dataset.save_as(partial, enforce_file_format=True)
    partial.replace(path)


def _describe(dataset: Dataset, facts: DicomFacts) -> None:
    person = facts.identity
    dataset.PatientName = person.dicom_name if person else ""
    dataset.PatientID = person.number if person else facts.patient_id
    dataset.PatientBirthDate = person.birth_date if person else ""
    dataset.PatientSex = ""
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=[facts.study_id])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[facts.study_id, "series"])
    dataset.StudyID, dataset.AccessionNumber, dataset.ReferringPhysicianName = "", "", ""
    dataset.StudyDate, dataset.StudyTime = f"{facts.study_date:%Y%m%d}", "100000"
    dataset.SeriesNumber, dataset.InstanceNumber = 1, facts.instance_number
    dataset.Modality, dataset.Manufacturer = "US", facts.manufacturer
    kind = "0001" if facts.colour_box is None else "0011"  # 2-D; 2-D and colour Doppler
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "", kind]
    dataset.BurnedInAnnotation = "YES" if person else "NO"
    dataset.FrameTime = f"{1000.0 / facts.native_fps:.6f}"
    dataset.CineRate = dataset.RecommendedDisplayFrameRate = round(facts.native_fps)


def _region(box: tuple[int, int, int, int], data_type: int, pixel_cm: float) -> Dataset:
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType = _TWO_DIMENSIONAL, data_type
    region.RegionFlags = 0
    left, top, right, bottom = box
    region.RegionLocationMinX0, region.RegionLocationMinY0 = left, top
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = right, bottom
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = _CENTIMETRES
    region.PhysicalDeltaX = region.PhysicalDeltaY = float(pixel_cm)
    return region


def _put_pixels(dataset: Dataset, rgb: np.ndarray, *, compressed: bool) -> None:
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = rgb.shape[:3]
    dataset.FrameIncrementPointer = 0x00181063  # FrameTime
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelRepresentation = 0
    if not compressed:
        dataset.PhotometricInterpretation = "RGB"
        dataset.PixelData = np.ascontiguousarray(rgb).tobytes()
        return
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionMethod = "ISO_10918_1"
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422]
    encoded = [cv2.imencode(".jpg", frame[..., ::-1], options)[1].tobytes() for frame in rgb]
    dataset.PixelData = encapsulate(encoded)
