"""The content of a clip's file, read patiently: storage that stutters costs time, never a clip.

A path is a file of this machine, a URL an object of any store that pyarrow knows:

    /data/a.mp4                  file:///data/a.mp4 (percent-encoded, as file URLs are)
    s3://bucket/a study/#1.mp4   gs://...  abfss://container@account/...  hdfs://host:port/...

The path of an object URL is its key as it stands: `#`, `?`, `%` and spaces are ordinary characters.
Only a query of options that a store knows (`?region=eu-west-1&endpoint_override=...`) is not part
of it.
"""

from __future__ import annotations

import errno
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from echojepa.data.decode.objects import UnavailableError, read_object, without_options
from echojepa.errors import ClipError, StorageError

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_STORAGE_ERRORS = frozenset(
    {
        errno.EIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.ENOTCONN,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENODEV,
        errno.ENXIO,
        errno.EREMOTEIO,
        errno.ESHUTDOWN,
    }
)
"""What a file system says when the machine or disk behind it does not answer."""


@dataclass(frozen=True)
class Source:
    """A clip's file in memory."""

    content: bytes
    path: str | None
    """Where it lies, if on a file system of this machine: decord reads nothing else."""


def fetch(uri: str, patience_seconds: float) -> Source:
    """A whole file or object.

    Args:
        uri: see above.
        patience_seconds: for how long storage that fails is asked again. What an object store says
            of expired credentials can't be told from what it says of a forbidden object, so the
            latter is believed only where something else of the same store can be read.

    Raises:
        ClipError: stage "open": missing, unreadable, empty, forbidden.
        StorageError: the storage still fails, or this machine can't reach such storage at all.
    """
    path = _local_path(uri)
    read = (lambda: _read_file(path)) if path is not None else (lambda: read_object(uri))
    content = _patiently(read, uri, patience_seconds)
    if not content:
        raise ClipError("open", "empty", "the file has zero bytes")
    return Source(content, path)


def _patiently(read: Callable[[], bytes], uri: str, patience_seconds: float) -> bytes:
    deadline = time.monotonic() + patience_seconds
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            return read()
        except UnavailableError as error:
            if time.monotonic() + pause > deadline:
                raise StorageError(
                    f"{without_options(uri)} could not be read for {patience_seconds:g} s: {error}",
                    "Check the storage and the credentials of this machine, or take the clip out "
                    "of the manifest.",
                    "data",
                ) from None
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _local_path(uri: str) -> str | None:
    """The path of a local file, None for an object."""
    if "://" not in uri:
        return uri
    if not uri.startswith("file://"):
        return None
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise ClipError("open", "unreadable", "a file URL that names another machine")
    return unquote(parts.path)


def _read_file(path: str) -> bytes:
    file = Path(path)
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ClipError("open", "unreadable", "not a regular file")
        content = file.read_bytes()
    except FileNotFoundError:
        if _a_mount_has_gone():
            raise UnavailableError("what was read before has gone, too") from None
        raise ClipError("open", "missing", "no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        if isinstance(error, OSError) and error.errno in _STORAGE_ERRORS:
            raise UnavailableError(error.strerror) from None
        raise ClipError("open", "unreadable", type(error).__name__) from None
    _last_file[status.st_dev] = file
    return content


_last_file: dict[int, Path] = {}
"""By device, the last file that was read in this process."""


def _a_mount_has_gone() -> bool:
    """Whether a file that was read before is no longer there, or its folder on another device."""
    for device, file in _last_file.items():
        try:
            if file.stat().st_dev != device:
                return True
        except OSError:
            return True
    return False
