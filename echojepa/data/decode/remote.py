"""Objects behind URLs, read patiently: storage that stutters costs time, never a clip."""

from __future__ import annotations

import io
import time
from functools import cache
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.fs

from echojepa.errors import ClipError, StorageError, first_line

_OBJECT_STORES = ("s3", "gs", "gcs")
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0


def fetch(uri: str, patience_seconds: float) -> io.BytesIO:
    """A whole object in memory.

    Args:
        uri: of a file system that pyarrow knows.
        patience_seconds: for how long an object store that fails is asked again. What it says of
            expired credentials can't be told from what it says of a forbidden object, so only an
            object that is not there is the clip's own fault.

    Raises:
        ClipError: stage "open": missing, unreadable.
        StorageError: the object store still fails.
    """
    deadline = time.monotonic() + patience_seconds
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            return _read(uri)
        except FileNotFoundError:
            raise ClipError("open", "missing", "no such object") from None
        except (OSError, pa.ArrowException) as error:
            if _bucket(uri) is None or isinstance(error, pa.ArrowInvalid):
                raise ClipError("open", "unreadable", type(error).__name__) from None
            if time.monotonic() + pause > deadline:
                raise StorageError(
                    f"{uri.partition('?')[0]} could not be read for {patience_seconds:g} s: "
                    f"{first_line(error)}",
                    "Check the storage and the credentials of this machine, or take the clip out "
                    "of the manifest.",
                    "data",
                ) from None
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _read(uri: str) -> io.BytesIO:
    bucket = _bucket(uri)
    if bucket is not None:
        parts = urlsplit(uri)
        filesystem, path = _object_store(bucket), parts.netloc + unquote(parts.path)
    else:
        filesystem, path = pa.fs.FileSystem.from_uri(uri)
    with filesystem.open_input_stream(path) as stream:
        return io.BytesIO(stream.read())


def _bucket(uri: str) -> str | None:
    """The part of a URI that names a bucket and how to reach it, if there is one."""
    parts = urlsplit(uri)
    if parts.scheme not in _OBJECT_STORES or not parts.netloc:
        return None
    return f"{parts.scheme}://{parts.netloc}" + (f"?{parts.query}" if parts.query else "")


@cache
def _object_store(bucket: str) -> pa.fs.FileSystem:
    """Once per process: finding a bucket's region is a request of its own."""
    return pa.fs.FileSystem.from_uri(bucket)[0]
