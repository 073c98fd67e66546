"""Objects of stores that pyarrow knows, by URL: their keys, their refusals, their failures."""

from __future__ import annotations

import time
from functools import cache
from typing import NamedTuple
from urllib.parse import parse_qsl

import pyarrow as pa
import pyarrow.fs

from echojepa.errors import ClipError, StorageError, first_line

_OPTIONS = frozenset(
    [
        "scheme",
        "endpoint_override",
        "region",
        "allow_bucket_creation",
        "allow_bucket_deletion",
        "project_id",
        "check_directory_existence_before_creation",
        "force_virtual_addressing",
        "tls_ca_file_path",
        "smart_defaults",
        "retry_limit_seconds",
        "enable_tls",
        "blob_storage_authority",
        "dfs_storage_authority",
        "tenant_id",
        "client_id",
        "client_secret",
        "user",
        "replication",
        "buffer_size",
        "default_block_size",
    ]
)
"""Options of a store in the query of a URL."""
_REFUSALS = ("ACCESS_DENIED", "AccessDenied", "PERMISSION_DENIED", "Permission denied", "403")
_REFUSAL_PAUSES_SECONDS = (0.5, 1.0, 2.0)
"""An object that is refused each time, while others can be read, is forbidden."""


class UnavailableError(Exception):
    """The storage does not answer now; it may do so later."""


class _Location(NamedTuple):
    """An object URL in its parts."""

    store: str
    """Scheme, host or bucket, and options."""
    key: str


def read_object(uri: str) -> bytes:
    """A whole object.

    Raises:
        ClipError: stage "open": missing, unreadable, forbidden.
        UnavailableError: the store does not answer.
        StorageError: this machine can't reach such a store at all.
    """
    location = _locate(uri)
    for pause in _REFUSAL_PAUSES_SECONDS:  # more than once: credentials may just be renewed
        try:
            return _read_key(location)
        except PermissionError as error:
            if not _something_else_can_be_read(location.store):
                raise UnavailableError(first_line(error)) from None
        time.sleep(pause)
    what = "this machine's credentials may not read it, or it is not there"
    raise ClipError("open", "forbidden", what)


def _read_key(location: _Location) -> bytes:
    """The object, or a PermissionError where the store refuses it."""
    try:
        filesystem, root = _open_store(location.store)
        path = f"{root}/{location.key}"
        with filesystem.open_input_stream(path) as stream:
            content: bytes = stream.read()
    except FileNotFoundError:
        raise ClipError("open", "missing", "no such object") from None
    except pa.ArrowInvalid as error:
        raise ClipError("open", "unreadable", type(error).__name__) from None
    except (OSError, pa.ArrowException) as error:
        reason = first_line(error)
        if "Unable to load" in reason:  # no library for HDFS on this machine
            remedy = "Install what it asks for on every node, or copy the clips elsewhere."
            raise StorageError(f"{location.store}: {reason}", remedy, "data") from None
        if any(refusal in reason for refusal in _REFUSALS):
            raise PermissionError(reason) from None
        raise UnavailableError(reason) from None
    _last_read[location.store] = path
    return content


def _something_else_can_be_read(store: str) -> bool:
    """Whether the credentials are good: for the last object that was read, or the bucket."""
    try:
        filesystem, root = _open_store(store)
        filesystem.get_file_info(_last_read.get(store, root))
    except (OSError, pa.ArrowException):
        return False
    return True


_last_read: dict[str, str] = {}
"""By store, the path of the last object that was read in this process."""


def _locate(uri: str) -> _Location:
    plain = without_options(uri)
    scheme, _, rest = plain.partition("://")
    host, _, key = rest.partition("/")
    if not host or not key:
        raise ClipError("open", "unreadable", "the URL names no object")
    return _Location(f"{scheme}://{host}{uri[len(plain) :]}", key)


def without_options(uri: str) -> str:
    """The URL without a query of options, if the last `?` begins one."""
    plain, mark, query = uri.rpartition("?")
    names = [name for name, _ in parse_qsl(query)] if mark else []
    return plain if names and _OPTIONS.issuperset(names) else uri


@cache
def _open_store(store: str) -> tuple[pa.fs.FileSystem, str]:
    """The file system and its root, once per process: finding a bucket's region is a request."""
    filesystem, root = pa.fs.FileSystem.from_uri(store)
    return filesystem, root.rstrip("/")
