"""Files of this machine: what is the clip's fault, what the storage's, and what is waited for."""

from __future__ import annotations

import os
import time
from pathlib import Path
from threading import Timer

import pytest
from support.clips import LONG_GOP, SHORT_GOP, error_of

from echojepa.data.decode import source
from echojepa.data.decode.source import fetch
from echojepa.errors import StorageError


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has read nothing."""
    monkeypatch.setattr(source, "_last_file", {})


@pytest.fixture
def mount(videos: Path, tmp_path: Path) -> Path:
    """A folder with two clips, which may be taken away."""
    folder = tmp_path / "mount"
    folder.mkdir()
    for kind in (SHORT_GOP, LONG_GOP):
        (folder / kind.name).write_bytes((videos / kind.name).read_bytes())
    return folder


def test_a_file_whose_disk_fails_is_not_to_blame(tmp_path: Path) -> None:
    """Reading address 0 of a process gives a true input/output error."""
    failing = tmp_path / "hidden.mp4"
    failing.symlink_to("/proc/self/mem")
    with pytest.raises(OSError, match="Input/output error"):
        failing.read_bytes()
    began = time.monotonic()
    with pytest.raises(StorageError, match=r"could not be read for 1 s: Input/output error") as e:
        fetch(str(failing), 1.0)
    assert 0.4 < time.monotonic() - began < 5
    assert "Check the storage" in e.value.remedy


def test_a_mount_that_has_gone_is_waited_for(mount: Path) -> None:
    read = fetch(str(mount / SHORT_GOP.name), 0.0).content
    away = mount.rename(mount.with_name("away"))
    mount.mkdir()  # a mount point without its mount is an empty folder
    Timer(1.2, lambda: (mount.rmdir(), away.rename(mount))).start()
    found = fetch(str(mount / LONG_GOP.name), 30.0).content
    assert found == (mount / LONG_GOP.name).read_bytes() != read


def test_a_mount_that_stays_away_ends_the_job(mount: Path) -> None:
    fetch(str(mount / SHORT_GOP.name), 0.0)
    mount.rename(mount.with_name("away"))
    with pytest.raises(StorageError, match="what was read before has gone, too"):
        fetch(str(mount / LONG_GOP.name), 0.0)


def test_a_file_missing_among_others_is_its_clips_fault(mount: Path) -> None:
    hidden = mount / "hidden.mp4"
    assert error_of(lambda: fetch(str(hidden), 60.0), hidden) == ("open", "missing")
    fetch(str(mount / SHORT_GOP.name), 0.0)
    assert error_of(lambda: fetch(str(hidden), 60.0), hidden) == ("open", "missing")


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    pipe = tmp_path / "hidden.mp4"
    os.mkfifo(pipe)
    assert error_of(lambda: fetch(str(pipe), 60.0), pipe) == ("open", "unreadable")
    assert error_of(lambda: fetch("/dev/zero", 60.0)) == ("open", "unreadable")


def test_names_are_taken_as_they_stand(tmp_path: Path) -> None:
    for name in ("a b.mp4", "#1?x=%20.mp4", "100%.mp4", "ü.mp4"):
        (tmp_path / name).write_bytes(name.encode())
        assert fetch(str(tmp_path / name), 0.0).content == name.encode()
        assert fetch((tmp_path / name).as_uri(), 0.0).content == name.encode()


def test_storage_this_machine_cannot_reach_is_said_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(StorageError, match="hdfs://name:8020: .*"):
        fetch("hdfs://name:8020/clips/a.mp4", 600.0)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("uri", ["nowhere://host/a.mp4", "s3://", "s3://bucket", "s3://bucket/"])
def test_a_url_that_names_no_object(uri: str) -> None:
    assert error_of(lambda: fetch(uri, 60.0)) == ("open", "unreadable")
