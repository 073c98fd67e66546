"""The memory-mapped clip table, plain and as a mixture of data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support.clips import clip_rows

from echojepa.data.clip_table import open_clips
from echojepa.data.manifest.file import (
    manifest_fingerprint,
    read_manifest,
    with_absolute_uris,
    write_manifest,
)
from echojepa.data.manifest.schema import STREAM_COLUMNS, ClipFilter
from echojepa.data.mixture import MixtureConfig
from echojepa.errors import ManifestError
from echojepa.randomness import Seeds

ALL = ClipFilter(split=None)
SPLITS = ["train", "train", "train", "val", "val", "test", None, None]
FRAMES = [1, 60, 60, 30, 60, 60, 20, 60]


def test_rows_of_the_table(tmp_path: Path) -> None:
    rows = clip_rows(8, split=SPLITS, num_frames=FRAMES).append_column(
        "content_hash", pa.array([f"h{i}" for i in range(8)])
    )
    path = write_manifest(rows, tmp_path / "manifest.parquet")
    clips = open_clips(path, ClipFilter(split="val"), cache=tmp_path / "cache")
    assert clips.row(0) == {
        "clip_id": "c3",
        "uri": str(tmp_path / "videos/3.mp4"),
        "num_frames": 30,
        "native_fps": 30.0,
        "duration_seconds": 1.0,
        "height": 48,
        "width": 64,
    }
    assert tuple(clips.row(1)) == STREAM_COLUMNS
    assert clips.clip_ids(np.array([1, 0, 1])) == ["c4", "c3", "c4"]
    assert clips.clip_ids(np.array([], np.int64)) == []
    assert clips.fingerprint == manifest_fingerprint(path)


def test_only_relative_paths_are_taken_relative_to_the_manifest(tmp_path: Path) -> None:
    uris = ["a/b.mp4", "/data/c.mp4", "s3://bucket/d.mp4", "../e.mp4"]
    folder = tmp_path / "set"
    path = write_manifest(clip_rows(uri=uris), folder / "manifest.parquet")
    clips = open_clips(path, ALL, cache=tmp_path / "cache")
    found = [clips.row(i)["uri"] for i in range(4)]
    assert found[0] == str(folder / "a/b.mp4")
    assert found[1:3] == uris[1:3]
    assert Path(found[3]).resolve() == tmp_path / "e.mp4"
    table = with_absolute_uris(read_manifest(path), folder)
    assert table["uri"].to_pylist() == found

    moved = tmp_path / "moved" / "manifest.parquet"
    moved.parent.mkdir()
    moved.write_bytes(path.read_bytes())
    there = open_clips(moved, ALL, cache=tmp_path / "cache")
    assert there.row(0)["uri"] == str(tmp_path / "moved" / "a/b.mp4")


def test_the_conversion_runs_once(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    path = write_manifest(
        clip_rows(8, split=SPLITS, num_frames=FRAMES), tmp_path / "manifest.parquet"
    )
    open_clips(path, ALL, cache=cache)
    (mapped,) = cache.glob("*.arrow")
    before = mapped.stat()
    assert len(open_clips(path, ALL, cache=cache)) == 8
    after = mapped.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    open_clips(path, ClipFilter(split="val"), cache=cache)
    assert len(list(cache.glob("*.arrow"))) == 2


def test_a_changed_manifest_gives_another_table(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    path = write_manifest(clip_rows(), tmp_path / "manifest.parquet")
    old = open_clips(path, ALL, cache=cache)
    write_manifest(clip_rows(num_frames=[60, 60, 60, 61]), path)
    new = open_clips(path, ALL, cache=cache)
    assert new.fingerprint != old.fingerprint
    assert (old.row(3)["num_frames"], new.row(3)["num_frames"]) == (60, 61)
    assert len(list(cache.glob("*.arrow"))) == 2


def test_the_table_is_mapped_not_read(tmp_path: Path) -> None:
    path = write_manifest(clip_rows(20_000), tmp_path / "manifest.parquet")
    open_clips(path, ALL, cache=tmp_path / "cache")
    before = pa.total_allocated_bytes()
    clips = open_clips(path, ALL, cache=tmp_path / "cache")
    assert clips.row(19_999)["clip_id"] == "c19999"
    assert pa.total_allocated_bytes() - before < 100_000  # the columns hold some 2 MB


def test_a_mixture_takes_its_data_sets_and_no_others(tmp_path: Path) -> None:
    sites = ["b", "a", None, "b", "c", "a", "b", "c"]
    path = write_manifest(clip_rows(8, population=sites), tmp_path / "manifest.parquet")
    cache = tmp_path / "cache"
    clips = open_clips(path, ALL, MixtureConfig(shares={"b": 3, "a": 1}), cache)
    assert clips.mixture is not None
    assert [(p.name, p.num_clips, p.per_period) for p in clips.mixture.parts] == [
        ("a", 2, 250),
        ("b", 3, 750),
    ]
    assert clips.clip_ids(np.arange(len(clips))) == ["c1", "c5", "c0", "c3", "c6"]
    s = np.arange(12)
    drawn = clips.clip_ids(clips.rows_of(s, Seeds(3)))
    first_of_a = [c for c in drawn if c in ("c1", "c5")][:2]
    first_of_b = [c for c in drawn if c not in ("c1", "c5")][:3]
    assert sorted(first_of_a) == ["c1", "c5"] and sorted(first_of_b) == ["c0", "c3", "c6"]
    plain = open_clips(path, ALL, cache=cache)
    assert plain.mixture is None and len(plain) == 8
    other = open_clips(path, ALL, MixtureConfig(shares={"b": 1, "a": 1}), cache)
    assert other.mixture is not None
    assert [p.per_period for p in other.mixture.parts] == [500, 500]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_names_of_data_sets_in_any_kind_of_text(tmp_path: Path, kind: pa.DataType) -> None:
    sites = pa.array(["b", "a", None, "b"]).cast(kind)
    path = write_manifest(clip_rows(4, site=sites), tmp_path / "manifest.parquet")
    mixture = MixtureConfig(by="site", shares={"a": 1, "b": 1})
    assert len(open_clips(path, ALL, mixture, tmp_path / "cache")) == 3


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        (MixtureConfig(by="site", shares={"a": 1}), "no column 'site'"),
        (MixtureConfig(by="num_frames", shares={"a": 1}), "'num_frames' holds int32"),
        (MixtureConfig(shares={"a": 1, "d": 1}), r"population 'd'; there are \['a', 'b'\]"),
    ],
    ids=["no column", "numbers", "no such data set"],
)
def test_a_mixture_of_what_is_not_there(
    tmp_path: Path, mixture: MixtureConfig, message: str
) -> None:
    rows = clip_rows(4, population=["a", "b", "b", None])
    path = write_manifest(rows, tmp_path / "manifest.parquet")
    with pytest.raises(ManifestError, match=message):
        open_clips(path, ALL, mixture, tmp_path / "cache")
