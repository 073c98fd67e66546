"""Manifests: what is accepted, what is refused in which words, and the memory-mapped table."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.clips import clip_rows

from echojepa.data.clip_table import open_clips
from echojepa.data.manifest.file import (
    check_manifest,
    manifest_fingerprint,
    read_manifest,
    write_manifest,
)
from echojepa.data.manifest.schema import SCHEMA, SPLITS, ClipFilter
from echojepa.data.manifest.splits import split_manifest
from echojepa.errors import ManifestError

ALL = ClipFilter(split=None)


def write_raw(folder: Path, **changes: Any) -> Path:
    """A Parquet file with the columns of `clip_rows`, unchecked."""
    path = folder / "manifest.parquet"
    pq.write_table(clip_rows(**changes), path)
    return path


def test_round_trip(tmp_path: Path) -> None:
    splits = ["train", "val", None, "test"]
    lvef = [55.0, None, 61.5, 40.0]
    views = ["A4C", None, "PLAX", "A4C"]
    table = clip_rows(split=splits, view=views, lvef=lvef)
    path = write_manifest(table, tmp_path / "made" / "here" / "manifest.parquet")
    read = read_manifest(path)
    assert read.column_names == [*SCHEMA.names, "lvef"]
    assert [read.schema.field(name).type for name in SCHEMA.names] == SCHEMA.types
    for name in table.column_names:
        assert read[name].to_pylist() == table[name].to_pylist()
    for absent in ("doppler", "population", "content_hash"):
        assert read[absent].to_pylist() == [None] * 4
    assert [file.name for file in path.parent.iterdir()] == ["manifest.parquet"]
    again = write_manifest(read, tmp_path / "again.parquet")
    assert read_manifest(again).equals(read)


def test_narrower_types_are_widened(tmp_path: Path) -> None:
    path = write_raw(
        tmp_path,
        num_frames=pa.array([10, 20, 30, 40], pa.int16()),
        native_fps=[25, 30, 47, 50],
        view=pa.array(["A4C", "A2C", "A4C", "A4C"]).dictionary_encode(),
    )
    read = read_manifest(path)
    assert read["num_frames"].type == pa.int32()
    assert read["native_fps"].to_pylist() == [25.0, 30.0, 47.0, 50.0]
    assert read["view"].type == pa.string()


def test_a_bad_table_is_not_written(tmp_path: Path) -> None:
    target = write_manifest(clip_rows(), tmp_path / "manifest.parquet")
    before = target.read_bytes()
    with pytest.raises(ManifestError, match="occurs 2 times"):
        write_manifest(clip_rows(clip_id=["a", "a", "b", "c"]), target)
    assert target.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.parquet"]


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "none.parquet"
    for call in (read_manifest, check_manifest, lambda p: open_clips(p, ALL, cache=tmp_path)):
        with pytest.raises(ManifestError, match="no such manifest") as caught:
            call(path)
        assert caught.value.where == str(path)
        assert "echojepa phantom" in caught.value.remedy
    with pytest.raises(ManifestError, match="no such manifest"):
        read_manifest(tmp_path)  # a folder


@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_not_parquet(tmp_path: Path, part: float) -> None:
    content = write_raw(tmp_path).read_bytes()
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ManifestError, match="not a Parquet file: ") as caught:
        read_manifest(damaged)
    assert "\n" not in str(caught.value)
    damaged.write_text("clip_id,patient_id\n")
    with pytest.raises(ManifestError, match="not a Parquet file: "):
        read_manifest(damaged)


NEEDED = [field.name for field in SCHEMA if not field.nullable]


@pytest.mark.parametrize("name", NEEDED)
def test_missing_column(tmp_path: Path, name: str) -> None:
    with pytest.raises(ManifestError, match=f"column '{name}' is missing"):
        read_manifest(write_raw(tmp_path, **{name: None}))


@pytest.mark.parametrize("name", NEEDED)
def test_null(tmp_path: Path, name: str) -> None:
    values = clip_rows()[name].to_pylist()
    values[2] = None
    with pytest.raises(ManifestError, match=f"column '{name}' is null in row 2"):
        read_manifest(write_raw(tmp_path, **{name: values}))


BAD_VALUES: list[tuple[dict[str, Any], str]] = [
    ({"num_frames": ["1", "2", "many", "4"]}, "column 'num_frames' is string, not int32"),
    ({"num_frames": [1.5, 2.0, 3.0, 4.0]}, "column 'num_frames' is double, not int32"),
    ({"num_frames": [1, 2, 3, 2**40]}, "column 'num_frames' is int64, not int32"),
    ({"uri": [["a"], ["b"], ["c"], ["d"]]}, "column 'uri' is list<.*>, not string"),
    ({"native_fps": [{"rate": 30}] * 4}, "column 'native_fps' is struct<.*>, not double"),
    ({"clip_id": ["a", "b", "a", "a"]}, "clip_id 'a' occurs 3 times"),
    ({"num_frames": [9, 0, 9, 9]}, "num_frames = 0 of clip 'c1' is not "),
    ({"native_fps": [9, 9, 9, -1.0]}, "native_fps = -1.0 of clip 'c3' is not "),
    ({"native_fps": [float("nan"), 9, 9, 9]}, "native_fps = nan of clip 'c0' is not "),
    ({"height": [9, 9, 0, 9]}, "height = 0 of clip 'c2' is not "),
    ({"width": [9, -9, 0, 9]}, "width = -9 of clip 'c1' is not "),
    ({"split": ["train", "dev", None, "val"]}, "split 'dev' is not one of train, val, test"),
    ({"doppler": ["color", None, "none", None]}, "doppler 'color' is not one of none, colour"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_VALUES, ids=[m for _, m in BAD_VALUES])
def test_bad_values(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write_raw(tmp_path, **changes)
    with pytest.raises(ManifestError, match=message) as caught:
        read_manifest(path)
    assert caught.value.where == str(path)
    assert caught.value.remedy
    with pytest.raises(ManifestError, match=message):
        open_clips(path, ALL, cache=tmp_path / "cache")


def test_infinite_frame_rate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="native_fps = inf of clip 'c1'"):
        read_manifest(write_raw(tmp_path, native_fps=[30.0, float("inf"), 30.0, 30.0]))


def test_no_rows(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="the manifest has no rows"):
        read_manifest(write_raw(tmp_path, count=0))


def test_a_patient_in_two_splits_is_named_with_both(tmp_path: Path) -> None:
    patients = ["ann", "bob", "bob", "cyd"]
    path = write_raw(tmp_path, patient_id=patients, split=["train", "val", "test", "train"])
    with pytest.raises(ManifestError, match=r"patient 'bob' is in two splits \(test and val\); 1 "):
        read_manifest(path)
    unassigned = write_raw(tmp_path, patient_id=patients, split=["train", "val", None, "train"])
    assert len(read_manifest(unassigned)) == 4


def test_new_splits_repair_a_patient_in_two_splits(tmp_path: Path) -> None:
    path = write_raw(
        tmp_path, patient_id=["a", "b", "b", "c"], split=["train", "val", "test", "not a split"]
    )
    with pytest.raises(ManifestError):
        read_manifest(path)
    fixed = split_manifest(path, path, (0.5, 0.25, 0.25), seed=0)
    splits = read_manifest(fixed)["split"].to_pylist()
    assert splits[1] == splits[2]
    assert set(splits) <= set(SPLITS)


def test_fingerprint_is_of_every_byte(tmp_path: Path) -> None:
    path = write_raw(tmp_path)
    content = path.read_bytes()
    assert manifest_fingerprint(path) == hashlib.sha256(content).hexdigest()
    large = tmp_path / "large"
    large.write_bytes(bytes(3 * 2**20))
    before = manifest_fingerprint(large)
    with large.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\1")
    assert manifest_fingerprint(large) != before


def some_rows() -> pa.Table:
    """Eight clips with splits, views and lengths."""
    return clip_rows(
        8,
        split=["train", "train", "train", "val", "val", "test", None, None],
        view=["A4C", "A2C", None, "A4C", "A2C", "A4C", "A4C", None],
        doppler=["none", "colour", "none", None, "none", "spectral", "none", "colour"],
        num_frames=[1, 60, 60, 30, 60, 60, 20, 60],
    )


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        (ClipFilter(), "c0 c1 c2"),
        (ClipFilter(split="val"), "c3 c4"),
        (ClipFilter(split=None), "c0 c1 c2 c3 c4 c5 c6 c7"),
        (ClipFilter(split=None, views=("A4C",)), "c0 c3 c5 c6"),
        (ClipFilter(split=None, views=("A2C", "A4C")), "c0 c1 c3 c4 c5 c6"),
        (ClipFilter(split=None, doppler=("colour", "spectral")), "c1 c5 c7"),
        (ClipFilter(min_frames=2), "c1 c2"),
        (ClipFilter(split=None, min_frames=30), "c1 c2 c3 c4 c5 c7"),
        (ClipFilter(split="train", views=("A4C", "A2C"), min_frames=2), "c1"),
    ],
    ids=str,
)
def test_filter(tmp_path: Path, where: ClipFilter, kept: str) -> None:
    path = write_manifest(some_rows(), tmp_path / "manifest.parquet")
    clips = open_clips(path, where, cache=tmp_path / "cache")
    assert len(clips) == len(kept.split())
    assert clips.clip_ids(np.arange(len(clips))) == kept.split()
    kept_rows = read_manifest(path, ("clip_id",), where.rows())
    assert kept_rows["clip_id"].to_pylist() == kept.split()


def test_no_row_passes(tmp_path: Path) -> None:
    path = write_manifest(some_rows(), tmp_path / "manifest.parquet")
    with pytest.raises(ManifestError, match=r"no row of 8 passes the filter .*PLAX") as caught:
        open_clips(path, ClipFilter(views=("PLAX",)), cache=tmp_path / "cache")
    assert caught.value.where == str(path)
    assert "data.where" in caught.value.remedy
