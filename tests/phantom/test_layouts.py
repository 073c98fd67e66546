"""Phantoms as other data sets are laid out, and as multi-frame DICOM."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.pixels import pixel_array

from echojepa.data.manifest.file import read_manifest
from echojepa.phantom import PhantomConfig, render_clip, write_phantom

DICOM = PhantomConfig(
    seed=14,
    num_studies=4,
    size=48,
    num_frames=2,
    views=("A4C", "PSAX-PM"),
    avi_fraction=0.0,
    dicom_fraction=1.0,
    colour_fraction=0.5,
)


def test_layout_of_echonet_dynamic(tmp_path: Path) -> None:
    config = PhantomConfig(
        num_studies=2,
        size=32,
        num_frames=2,
        views=("A4C",),
        layout="echonet_dynamic",
        avi_fraction=1.0,
    )
    rows = read_manifest(write_phantom(config, tmp_path)).to_pylist()
    with (tmp_path / "FileList.csv").open() as file:
        listed = list(csv.DictReader(file))
    assert [entry["FileName"] for entry in listed] == sorted(row["clip_id"] for row in rows)
    by_name = {row["clip_id"]: row for row in rows}
    for entry in listed:
        row = by_name[entry["FileName"]]
        assert (tmp_path / "Videos" / f"{entry['FileName']}.avi").is_file()
        assert float(entry["EF"]) == row["lvef"] and float(entry["EDV"]) == row["edv_ml"]
        assert entry["Split"] == row["split"].upper()


def test_layout_of_mimic(tmp_path: Path) -> None:
    config = PhantomConfig(
        num_studies=6,
        size=32,
        num_frames=1,
        views=("A4C", "PSAX-PM"),
        clips_per_view=2,
        follow_up_fraction=0.5,
        layout="mimic_iv_echo",
        dicom_fraction=1.0,
        avi_fraction=0.0,
    )
    rows = read_manifest(write_phantom(config, tmp_path)).to_pylist()
    with (tmp_path / "echo-record-list.csv").open() as file:
        listed = list(csv.DictReader(file))
    by_path = {row["uri"]: row for row in rows}
    assert [entry["dicom_filepath"] for entry in listed] == sorted(by_path)
    pattern = re.compile(r"files/p1\d/p1\d{7}/s9\d{7}/9\d{7}_000[1-4]\.dcm")
    assert all(pattern.fullmatch(uri) for uri in by_path) and len(by_path) == 24
    at_place = [{by_path[e["dicom_filepath"]]["view"] for e in listed[k::4]} for k in range(4)]
    assert any(len(views) > 1 for views in at_place), "the order would tell the view"
    for entry in listed:
        header = dcmread(tmp_path / entry["dicom_filepath"])
        assert f"{header.InstanceNumber:04d}" == entry["dicom_filepath"][-8:-4]
        assert entry["acquisition_datetime"][:10] == by_path[entry["dicom_filepath"]]["study_date"]
        assert header.StudyDate == entry["acquisition_datetime"][:10].replace("-", "")
    dates: dict[str, list[str]] = {}
    for row in rows:
        dates.setdefault(row["patient_id"], []).append(row["study_date"])
    assert max(len(set(of)) for of in dates.values()) > 1, "some patient came again"
    assert all(of == sorted(of) for of in dates.values()), "later studies have later dates"


def test_planted_identities_are_in_headers_pixels_and_the_key(tmp_path: Path) -> None:
    config = DICOM.model_copy(update={"num_studies": 2, "size": 128, "colour_fraction": 0.0})
    clean = read_manifest(write_phantom(config, tmp_path / "clean")).to_pylist()
    planting = config.model_copy(update={"planted_identities": True})
    planted = read_manifest(write_phantom(planting, tmp_path / "planted")).to_pylist()
    with (tmp_path / "planted" / "identities.csv").open() as file:
        key = {entry["patient_id"]: entry for entry in csv.DictReader(file)}
    kinds = set()
    for before, after in zip(clean, planted, strict=True):
        header = dcmread(tmp_path / "planted" / after["uri"])
        who = key[after["patient_id"]]
        assert (str(header.PatientName), header.PatientID) == (who["name"], who["number"])
        assert header.BurnedInAnnotation == "YES"
        kinds.add(header.PhotometricInterpretation)
        bare = dcmread(tmp_path / "clean" / before["uri"])
        assert (str(bare.PatientName), bare.PatientBirthDate) == ("", "")
        frames = [
            pixel_array(tmp_path / n / r["uri"]) for n, r in (("clean", before), ("planted", after))
        ]
        changed = (np.abs(frames[0].astype(int) - frames[1]) > 40).any(axis=(0, 3))
        assert changed[:24].sum() > 30 and changed[40:].sum() == 0, "burned in at the top"
    assert kinds == {"RGB", "YBR_FULL_422"}


def test_dicom_regions_and_times_are_read_by_pydicom(tmp_path: Path) -> None:
    rows = read_manifest(write_phantom(DICOM, tmp_path)).to_pylist()
    kinds = set()
    for number, row in enumerate(rows):
        header = dcmread(tmp_path / row["uri"])
        clip = render_clip(DICOM, number // 2, row["view"])
        tissue, *flow = header.SequenceOfUltrasoundRegions
        assert tissue.RegionDataType == 1
        assert tissue.PhysicalDeltaX == pytest.approx(clip.scanner.pixel_cm)
        columns = np.flatnonzero(clip.scanner.sector().any(axis=0))
        assert (tissue.RegionLocationMinX0, tissue.RegionLocationMaxX1) == (columns[0], columns[-1])
        kinds.add(row["doppler"])
        if row["doppler"] == "none":
            assert not flow and header.ImageType[3] == "0001"
            continue
        coloured = (np.ptp(clip.frames.astype(int), axis=3) > 40).any(axis=0)
        rows_seen, columns_seen = np.nonzero(coloured)
        assert header.ImageType[3] == "0011" and [f.RegionDataType for f in flow] == [2]
        assert flow[0].RegionLocationMinX0 <= columns_seen.min()
        assert flow[0].RegionLocationMaxY1 >= rows_seen.max()
        assert flow[0].RegionLocationMinX0 > columns[0], "smaller than the sector"
    assert kinds == {"none", "colour"}
