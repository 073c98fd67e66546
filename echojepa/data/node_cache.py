"""What is worked out once per node and kept in a folder for all of its processes."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from echojepa.data.manifest.file import manifest_fingerprint

_SETTLED_SECONDS = 2.0
"""A file that changed less than so long ago may change again within a tick of the clock."""


def node_folder() -> Path:
    """The folder of this user on this node."""
    return Path(tempfile.gettempdir()) / f"echojepa-clips-{os.getuid()}"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file that is about to be made; other processes of the node wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def known_fingerprint(path: Path, folder: Path) -> str:
    """`manifest_fingerprint`, worked out once for each state of a file.

    The state is path, inode, size and time of the last change, as for git's index.
    """
    status = path.stat()
    state = (str(path.resolve()), status.st_ino, status.st_size, status.st_mtime_ns)
    known = folder / f"{hashlib.sha256(repr(state).encode()).hexdigest()[:32]}.fingerprint"
    if known.is_file():
        return known.read_text()
    found = manifest_fingerprint(path)
    if time.time() - status.st_mtime > _SETTLED_SECONDS:
        folder.mkdir(parents=True, exist_ok=True)
        partial = known.with_name(f"{known.name}.{os.getpid()}")
        partial.write_text(found)
        partial.replace(known)
    return found
