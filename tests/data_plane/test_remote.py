"""Clips on a real S3 server: read like local ones, and none is lost to storage that fails."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pytest
from support.clips import error_of, probe, read_frames
from support.ranks import losses, pretrain_plain
from support.s3 import Behaviour, url

from echojepa.data.decode import objects
from echojepa.data.decode.source import fetch
from echojepa.data.manifest.file import read_manifest, with_absolute_uris, write_manifest
from echojepa.errors import ClipError, StorageError
from echojepa.runs.folder import RunFolder

pytestmark = pytest.mark.integration
Tree = dict[str, Any]


@pytest.fixture
def behaviour(s3_server: tuple[int, Behaviour]) -> Behaviour:
    s3_server[1].reset()
    return s3_server[1]


@pytest.fixture(scope="module")
def remote_manifest(
    s3_server: tuple[int, Behaviour],
    phantom_manifest: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The phantoms' manifest, with the videos in a bucket."""
    port, _ = s3_server
    filesystem, bucket = pa.fs.FileSystem.from_uri(url(port, "videos"))
    filesystem.create_dir(bucket)
    table = with_absolute_uris(read_manifest(phantom_manifest), phantom_manifest.parent)
    uris = []
    for file in map(Path, table["uri"].to_pylist()):
        with filesystem.open_output_stream(f"{bucket}/a study/{file.name}") as stream:
            stream.write(file.read_bytes())
        uris.append(url(port, f"videos/a study/{file.name}"))
    table = table.set_column(table.column_names.index("uri"), "uri", pa.array(uris))
    return write_manifest(table, tmp_path_factory.mktemp("remote") / "manifest.parquet")


@pytest.fixture
def remote(tiny_tree: Tree, remote_manifest: Path, tmp_path: Path) -> Tree:
    """The tiny run with its clips on S3."""
    data = tiny_tree["data"] | {"manifest": str(remote_manifest), "read": {"patience_seconds": 60}}
    return tiny_tree | {"data": data, "run_dir": str(tmp_path / "remote")}


def test_frames_are_those_of_the_local_file(
    behaviour: Behaviour, remote_manifest: Path, phantom_manifest: Path
) -> None:
    there = read_manifest(remote_manifest)["uri"].to_pylist()
    here = read_manifest(phantom_manifest)["uri"].to_pylist()
    indices = [0, 5, 5, 20]
    for remote_uri, local in zip(there[:4], here[:4], strict=True):
        behaviour.seen.clear()
        frames = read_frames(remote_uri, indices)
        local_frames = read_frames(str(phantom_manifest.parent / local), indices)
        assert np.array_equal(frames, local_frames)
        assert len(behaviour.seen) <= 2, "its size and its content"


@pytest.mark.parametrize("fault", ["500", "503", "reset", "expired"])
def test_storage_that_stutters_costs_no_clip(
    tiny_tree: Tree, remote: Tree, behaviour: Behaviour, fault: str
) -> None:
    """`expired`: as long as a new token needs to arrive."""
    local = pretrain_plain(tiny_tree)
    behaviour.next_answers = [fault, "pass", fault, fault]
    assert pretrain_plain(remote) == local
    assert not RunFolder(remote["run_dir"]).events("unreadable_clip")


def test_storage_that_is_gone_ends_the_run_and_the_same_command_goes_on(
    tiny_tree: Tree, remote: Tree, behaviour: Behaviour
) -> None:
    remote["loop"] = remote["loop"] | {"stop_after_step": 4}
    pretrain_plain(remote)
    del remote["loop"]["stop_after_step"]
    remote["data"]["read"]["patience_seconds"] = 1
    behaviour.always = "503"
    with pytest.raises(StorageError, match=r"could not be read for 1 s: .*503"):
        pretrain_plain(remote)
    assert not RunFolder(remote["run_dir"]).events("unreadable_clip"), "no clip is to blame"
    behaviour.reset()
    pretrain_plain(remote)
    assert losses(remote) == pretrain_plain(tiny_tree)


def test_an_object_that_is_not_there_is_its_clips_fault(
    s3_server: tuple[int, Behaviour], behaviour: Behaviour, remote_manifest: Path
) -> None:
    del remote_manifest
    with pytest.raises(ClipError, match="no such object"):
        fetch(url(s3_server[0], "videos/none.mp4"), 60.0)
    with pytest.raises(ClipError, match="no such object"):
        fetch(url(s3_server[0], "nowhere/none.mp4"), 60.0)
    assert behaviour.seen


@pytest.mark.parametrize("warm", [True, False], ids=["after others", "first of all"])
def test_a_forbidden_object_is_said_within_seconds(
    s3_server: tuple[int, Behaviour],
    behaviour: Behaviour,
    remote_manifest: Path,
    monkeypatch: pytest.MonkeyPatch,
    warm: bool,
) -> None:
    """The credentials are good for others, so waiting would not help."""
    monkeypatch.setattr(objects, "_last_read", {})
    other, forbidden = read_manifest(remote_manifest)["uri"].to_pylist()[:2]
    if warm:
        fetch(other, 60.0)
    behaviour.forbidden = Path(forbidden.split("?")[0]).name
    began = time.monotonic()
    assert error_of(lambda: fetch(forbidden, 600.0)) == ("open", "forbidden")
    assert time.monotonic() - began < 10


def test_expired_credentials_are_waited_for_though_others_were_read(
    behaviour: Behaviour, remote_manifest: Path
) -> None:
    other, wanted = read_manifest(remote_manifest)["uri"].to_pylist()[:2]
    fetch(other, 60.0)
    behaviour.always = "expired"
    with pytest.raises(StorageError, match=r"could not be read for 2 s"):
        fetch(wanted, 2.0)


def put(port: int, key: str, content: bytes) -> None:
    """Write an object whose key is taken literally."""
    filesystem, bucket = pa.fs.FileSystem.from_uri(url(port, "videos"))
    with filesystem.open_output_stream(f"{bucket}/{key}") as stream:
        stream.write(content)


@pytest.mark.parametrize("key", ["#1.mp4", "a?b=c.mp4", "100%.mp4", "a%20b.mp4", "a b/ü.mp4"])
def test_a_key_is_taken_as_it_stands(
    s3_server: tuple[int, Behaviour], behaviour: Behaviour, remote_manifest: Path, key: str
) -> None:
    del behaviour, remote_manifest
    put(s3_server[0], key, key.encode())
    assert fetch(url(s3_server[0], f"videos/{key}"), 10.0).content == key.encode()


def test_a_dicom_behind_a_url_is_one(
    s3_server: tuple[int, Behaviour], behaviour: Behaviour, remote_manifest: Path, dicom: str
) -> None:
    del behaviour, remote_manifest
    put(s3_server[0], "IM_0042", Path(dicom).read_bytes())
    uri = url(s3_server[0], "videos/IM_0042")
    assert probe(uri) == probe(dicom)
    assert np.array_equal(read_frames(uri, [7]), read_frames(dicom, [7]))
