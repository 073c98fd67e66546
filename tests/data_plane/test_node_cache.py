"""What a node works out once: fingerprints follow the state of a file."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from echojepa.data import node_cache
from echojepa.data.manifest.file import manifest_fingerprint
from echojepa.data.node_cache import known_fingerprint


def settled(path: Path, content: bytes, seconds_ago: float = 60.0) -> Path:
    """A file that was written a while ago."""
    path.write_bytes(content)
    then = time.time() - seconds_ago
    os.utime(path, (then, then))
    return path


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read from end to end."""
    read: list[Path] = []

    def fingerprint(path: Path) -> str:
        read.append(path)
        return manifest_fingerprint(path)

    monkeypatch.setattr(node_cache, "manifest_fingerprint", fingerprint)
    return read


def test_a_file_is_read_once(tmp_path: Path, counted: list[Path]) -> None:
    path = settled(tmp_path / "manifest.parquet", b"one")
    expected = manifest_fingerprint(path)
    assert [known_fingerprint(path, tmp_path / "cache") for _ in range(3)] == [expected] * 3
    assert counted == [path]


def test_any_change_is_seen(tmp_path: Path, counted: list[Path]) -> None:
    cache = tmp_path / "cache"
    path = settled(tmp_path / "manifest.parquet", b"one")
    first = known_fingerprint(path, cache)
    settled(path, b"two", seconds_ago=50.0)  # as long as before
    assert known_fingerprint(path, cache) != first
    other = settled(tmp_path / "other.parquet", b"one", seconds_ago=60.0)
    other.replace(path)  # as old and as long as the first, but another file
    assert known_fingerprint(path, cache) == first
    assert len(counted) == 3


def test_a_file_that_may_still_change_is_read_again(tmp_path: Path, counted: list[Path]) -> None:
    """Two writes within one tick of the clock leave no trace in the time of the file."""
    path = settled(tmp_path / "manifest.parquet", b"one", seconds_ago=0.5)
    for _ in range(2):
        known_fingerprint(path, tmp_path / "cache")
    assert len(counted) == 2
