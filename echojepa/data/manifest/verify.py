"""Does every video hold what the manifest says, and can it be decoded?

Each file is opened, walked, hashed, and its first, middle and last frame decoded. Hashing matters:
a flipped bit in an H.264 picture decodes to garbage without any error.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from echojepa.data.decode.frames import ReadConfig, open_video
from echojepa.data.manifest.check import Scan, ask
from echojepa.data.manifest.file import check_manifest, ready_to_read, scan_manifest
from echojepa.data.problem import Problem, guarded
from echojepa.errors import ManifestError

_TOLERANCE = 0.01
CHUNK_ROWS = 16
"""Files that one task looks at."""
Judged = tuple[dict[str, Any], Problem | None]
"""A row, measured, and what is wrong with its file."""
NOTES = "notes"
"""Key, but no column, of a judged row: texts that say what is odd about it, if it is not bad."""


def measure(uri: str, how: ReadConfig) -> dict[str, Any]:
    """What the manifest says of a file, found out from the file.

    Raises:
        ClipError: the file can't be read, or one of three frames can't be decoded.
        StorageError: its storage fails.
    """
    video = open_video(uri, how)
    info = video.probe()
    last = info.num_frames - 1
    video.frames(sorted({0, last // 2, last}), info.num_frames)
    return {**info._asdict(), "content_hash": f"sha256:{video.digest()}"}


def chunks_of(path: Path) -> Iterator[list[dict[str, Any]]]:
    """The rows of a manifest, ready to read, some at a time."""
    base = path.resolve().parent
    for batch in scan_manifest(path):
        rows = ready_to_read(batch, base)
        for start in range(0, rows.num_rows, CHUNK_ROWS):
            yield rows.slice(start, CHUNK_ROWS).to_pylist()


def verify_rows(how: ReadConfig, rows: list[dict[str, Any]]) -> list[Judged]:
    """Compare rows with their files; a good one comes back with the hash of its content."""
    judged: list[Judged] = []
    for row in rows:
        found, problem = guarded(partial(measure, row["uri"], how))
        if found is not None:
            problem = _difference(row, found)
            row = {**row, "content_hash": found["content_hash"]}
        judged.append((row, problem))
    return judged


def _difference(row: dict[str, Any], found: dict[str, Any]) -> Problem | None:
    """The first thing in which the file is not what its row says."""
    for name in ("num_frames", "height", "width"):
        if found[name] != row[name]:
            what = f"{name} is {found[name]}, the manifest says {row[name]}"
            return Problem("manifest", "differs", what)
    for name in ("native_fps", "duration_seconds"):
        if abs(found[name] / row[name] - 1) > _TOLERANCE:
            what = f"{name} is {found[name]:.3f}, the manifest says {row[name]:.3f}"
            return Problem("manifest", "differs", what)
    if row["content_hash"] not in (None, found["content_hash"]):
        return Problem("manifest", "changed", "the content has changed since it was hashed")
    return None


def check_all_rows(path: Path) -> int:
    """Check the rows of a manifest, but no file; returns how many there are.

    Raises:
        ManifestError: see `read_manifest`; or two rows name the same file.
    """
    check_manifest(path)
    scan: Scan = partial(scan_manifest, path)
    query = "select uri, min(clip_id), max(clip_id) from clips group by uri having count(*) > 1"
    found = ask(scan, ("uri", "clip_id"), f"{query} limit 1")
    if found:
        uri, one, other = found[0]
        what = f"clips {one!r} and {other!r} name the same file {uri}"
        raise ManifestError(what, "Drop one of them.", str(path))
    return sum(batch.num_rows for batch in scan(("split",)))


REJECTED = pa.schema(
    [
        ("clip_id", pa.string()),
        ("uri", pa.string()),
        ("stage", pa.string()),
        ("kind", pa.string()),
        ("message", pa.string()),
    ]
)
"""A table of files that can't be used, and why."""
