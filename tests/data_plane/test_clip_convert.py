"""The conversion for the node: once, by whoever comes first, in a child where it is large."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from support.clips import clip_rows

from echojepa.data import clip_convert
from echojepa.data.clip_convert import BATCH_ROWS, Conversion, convert
from echojepa.data.clip_table import open_clips
from echojepa.data.manifest.file import write_manifest
from echojepa.data.manifest.schema import STREAM_COLUMNS, ClipFilter
from echojepa.data.mixture import MixtureConfig
from echojepa.errors import EXIT_USER, ManifestError, StorageError

ALL = ClipFilter(split=None)
OPEN = """
import sys
from pathlib import Path
from echojepa.data import clip_table
from echojepa.data.manifest.schema import ClipFilter

convert = clip_table.convert
def counted(conversion):
    print("converts", flush=True)
    convert(conversion)
clip_table.convert = counted
sys.stdin.readline()
manifest, cache = map(Path, sys.argv[1:])
print(len(clip_table.open_clips(manifest, ClipFilter(split=None), cache=cache)))
"""


def test_processes_that_come_at_once_convert_once(tmp_path: Path) -> None:
    path = write_manifest(clip_rows(150_000), tmp_path / "manifest.parquet")
    command = [sys.executable, "-c", OPEN, str(path), str(tmp_path / "cache")]
    ones = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for one in ones:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    printed = [one.communicate()[0].split() for one in ones]
    assert [lines[-1] for lines in printed] == ["150000"] * 3
    assert sum("converts" in lines for lines in printed) == 1
    assert len(list((tmp_path / "cache").glob("*.arrow"))) == 1


def conversion(path: Path, target: Path, **changes: Any) -> Conversion:
    """Of all rows of a manifest."""
    settings = {"manifest": str(path), "where": ALL, "mixture": None, "target": str(target)}
    return Conversion(**(settings | changes))


def test_rows_keep_their_places_in_batches_of_one_size(tmp_path: Path) -> None:
    """Row i is in batch i // BATCH_ROWS, whatever the filter leaves of the row groups."""
    count = 3 * BATCH_ROWS
    splits = ["train" if i % 3 else None for i in range(count)]
    path = write_manifest(clip_rows(count, split=splits), tmp_path / "manifest.parquet")
    clips = open_clips(path, ClipFilter(), cache=tmp_path / "cache")
    kept = [f"c{i}" for i in range(count) if i % 3]
    assert len(clips) == len(kept)
    some = np.array([0, 1, BATCH_ROWS - 1, BATCH_ROWS, len(kept) - 1])
    assert clips.clip_ids(some) == [kept[i] for i in some]
    assert clips.row(BATCH_ROWS)["clip_id"] == kept[BATCH_ROWS]


def test_only_what_the_stream_reads_is_kept(tmp_path: Path) -> None:
    rows = clip_rows(4, content_hash=[f"sha256:{i}" for i in range(4)], lvef=[1.0] * 4)
    path = write_manifest(rows, tmp_path / "manifest.parquet")
    convert(conversion(path, tmp_path / "mapped.arrow"))
    mapped = pa.ipc.open_file(tmp_path / "mapped.arrow")
    assert tuple(mapped.schema.names) == STREAM_COLUMNS


@pytest.fixture
def in_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every manifest is a large one."""
    monkeypatch.setattr(clip_convert, "_SMALL_ROWS", 0)


@pytest.mark.usefixtures("in_a_child")
def test_a_child_writes_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = clip_rows(40, population=["a", "b", "b", "b"] * 10)
    path = write_manifest(rows, tmp_path / "manifest.parquet")
    mixture = MixtureConfig(shares={"a": 1, "b": 1})
    convert(conversion(path, tmp_path / "child.arrow", mixture=mixture))
    monkeypatch.setattr(clip_convert, "_SMALL_ROWS", 1000)
    convert(conversion(path, tmp_path / "here.arrow", mixture=mixture))
    assert (tmp_path / "child.arrow").read_bytes() == (tmp_path / "here.arrow").read_bytes()


@pytest.mark.usefixtures("in_a_child")
def test_errors_of_the_child_are_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "manifest.parquet"
    pq.write_table(clip_rows(clip_id=["a", "b", "a", "c"]), path)
    with pytest.raises(ManifestError, match="clip_id 'a' occurs 2 times") as caught:
        open_clips(path, ALL, cache=tmp_path / "cache")
    assert (caught.value.where, caught.value.remedy) == (
        str(path),
        "Give every clip an id of its own.",
    )
    write_manifest(clip_rows(), path)
    with pytest.raises(StorageError, match="the rows of the manifest cannot be written"):
        convert(conversion(path, Path("/proc/nowhere/mapped.arrow")))
    assert not list((tmp_path / "cache").glob("*.arrow"))


def test_a_child_that_is_killed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a kernel short of memory would; the next one who comes tries again."""
    path = write_manifest(clip_rows(), tmp_path / "manifest.parquet")
    monkeypatch.setattr(clip_convert, "_SMALL_ROWS", 0)
    killed = tmp_path / "killed"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(killed))
        with pytest.raises(StorageError, match="the process that converts the manifest ended"):
            open_clips(path, ALL, cache=tmp_path / "cache")
    assert len(open_clips(path, ALL, cache=tmp_path / "cache")) == 4


def test_the_childs_answer_is_one_line_of_json(tmp_path: Path) -> None:
    asked = conversion(tmp_path / "none.parquet", tmp_path / "mapped.arrow")
    done = subprocess.run(
        [sys.executable, "-m", "echojepa.data.clip_convert"],
        input=asked.model_dump_json(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == EXIT_USER
    assert json.loads(done.stdout)[:2] == ["ManifestError", "no such manifest"]
