"""The numbers `manifest stats` shows."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from support.clips import clip_rows

from echojepa.data.manifest.file import write_manifest
from echojepa.data.manifest.stats import describe_manifest


def of(rows: pa.Table, folder: Path) -> dict[str, dict[str, dict[str, str]]]:
    """What is said of these rows."""
    return describe_manifest(write_manifest(rows, folder / "manifest.parquet"))


def six() -> pa.Table:
    """Six clips of four studies of three patients, two of them stills."""
    return clip_rows(
        6,
        patient_id=["a", "a", "a", "b", "b", "c"],
        study_id=["s1", "s1", "s2", "s3", "s3", "s4"],
        num_frames=[60, 1, 30, 40, 1, 20],
        split=["train", "train", "train", "val", "val", None],
        view=["A4C", None, "A4C", "PLAX", "A4C", None],
        lvef=[50.0, None, 60.0, 70.5, None, 40.25],
        beats=[1, 2, None, 4, 5, 6],
        empty=pa.nulls(6, pa.float64()),
        site=["x", "y", "x", "y", "x", "y"],
        good=[True, False, True, True, True, True],
    )


def test_counts(tmp_path: Path) -> None:
    tables = of(six(), tmp_path)
    assert list(tables) == ["split", "view", "doppler", "number"]
    assert tables["split"] == {
        "None": {"clips": "1", "studies": "1", "patients": "1", "stills": "0"},
        "train": {"clips": "3", "studies": "2", "patients": "1", "stills": "1"},
        "val": {"clips": "2", "studies": "1", "patients": "1", "stills": "1"},
    }
    assert tables["view"] == {
        "A4C": {"clips": "3", "studies": "3", "patients": "2", "stills": "1"},
        "None": {"clips": "2", "studies": "2", "patients": "2", "stills": "1"},
        "PLAX": {"clips": "1", "studies": "1", "patients": "1", "stills": "0"},
    }
    assert tables["doppler"] == {
        "None": {"clips": "6", "studies": "4", "patients": "3", "stills": "2"}
    }


def test_spread(tmp_path: Path) -> None:
    numbers = of(six(), tmp_path)["number"]
    assert list(numbers) == ["num_frames", "native_fps", "height", "width", "lvef", "beats"]
    assert numbers["num_frames"] == {"known": "6", "least": "1", "median": "25", "most": "60"}
    assert numbers["lvef"] == {"known": "4", "least": "40.25", "median": "55", "most": "70.5"}
    assert numbers["beats"] == {"known": "5", "least": "1", "median": "4", "most": "6"}


def test_a_label_that_is_nan_is_not_known(tmp_path: Path) -> None:
    rows = clip_rows(3, lvef=[50.0, float("nan"), 60.0])
    spread = of(rows, tmp_path)["number"]
    assert spread["lvef"] == {"known": "2", "least": "50", "median": "55", "most": "60"}


def test_of_a_phantom(phantom_manifest: Path) -> None:
    tables = describe_manifest(phantom_manifest)
    assert {name: rows["clips"] for name, rows in tables["view"].items()} == {
        "A4C": "12",
        "PSAX-PM": "12",
    }
    assert sum(int(rows["patients"]) for rows in tables["split"].values()) == 12
    assert tables["number"]["num_frames"]["least"] == "24"
    assert 0 < float(tables["number"]["lvef"]["least"]) < float(tables["number"]["lvef"]["most"])
