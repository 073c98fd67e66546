"""A disk whose power is cut: what a folder would hold if only flushed bytes and names were kept.

The strictest reading of POSIX: the content of a file is what it was at its last fsync, and a name
is in a folder if it was there at the folder's last fsync.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

Inode = tuple[int, int]


class Disk:
    """Watches `os.fsync` of this process."""

    def __init__(self, after_flush: Callable[[Path], None]) -> None:
        """`after_flush` is called with what was flushed."""
        self._after_flush = after_flush
        self._fsync = os.fsync
        self._contents: dict[Inode, bytes] = {}
        self._names: dict[Inode, dict[str, Inode]] = {}
        self._kinds: dict[Inode, bool] = {}
        self._keep: list[int] = []
        """Open files, so that no inode number is used again."""

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        """From now on."""
        patch.setattr(os, "fsync", self._flush)

    def survives(self, root: Path, target: Path) -> None:
        """Write what would be left of a folder."""
        self._copy(_inode(root.stat()), target)

    def _copy(self, folder: Inode, target: Path) -> None:
        target.mkdir(parents=True)
        for name, inode in self._names.get(folder, {}).items():
            if self._kinds[inode]:
                self._copy(inode, target / name)
            else:
                (target / name).write_bytes(self._contents.get(inode, b""))

    def _flush(self, descriptor: int) -> None:
        self._fsync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            self._names[_inode(found)] = {entry.name: self._seen(entry) for entry in path.iterdir()}
        else:
            self._contents[_inode(found)] = path.read_bytes()
        self._after_flush(path)

    def _seen(self, path: Path) -> Inode:
        found = path.stat()
        inode = _inode(found)
        if inode not in self._kinds:
            self._keep.append(os.open(path, os.O_RDONLY))
            self._kinds[inode] = stat.S_ISDIR(found.st_mode)
        return inode

    def close(self) -> None:
        """Let go of all files."""
        for descriptor in self._keep:
            os.close(descriptor)


def _inode(found: os.stat_result) -> Inode:
    return found.st_dev, found.st_ino
