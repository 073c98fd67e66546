"""The rows one job uses, from Parquet to an Arrow file that many processes map into memory.

Large manifests are converted by a child process, so that what it needs is given back to the node:

    python -m echojepa.data.clip_convert    reads a `Conversion` as JSON, writes the error if any
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq

from echojepa.config import Strict
from echojepa.data.manifest.file import check_manifest, ready_to_read, scan_manifest
from echojepa.data.manifest.schema import STREAM_COLUMNS, ClipFilter, RowFilter
from echojepa.data.mixture import MixtureConfig
from echojepa.errors import EXIT_USER, ManifestError, StorageError

BATCH_ROWS = 1 << 16
"""Rows in every batch of the Arrow file but the last of it."""
SIZES = b"clips_per_data_set"
"""Key of the file's metadata: how many rows each data set of a mixture has, as JSON."""
_SMALL_ROWS = 200_000
"""Up to so many rows are converted in the process that asks: a child takes a second to start."""


class Conversion(Strict):
    """What to convert."""

    manifest: str
    """Path of the manifest."""
    where: ClipFilter
    """Which rows of it."""
    mixture: MixtureConfig | None
    """Its data sets, if samples are drawn by shares: then the rows come data set by data set."""
    target: str
    """Arrow file to write."""


def convert(conversion: Conversion) -> None:
    """Check the manifest and write the Arrow file; a large one in a child process.

    Raises:
        ManifestError: the manifest is bad, no row passes the filter, or a data set has none.
        StorageError: the node has no room for the file.
    """
    path = Path(conversion.manifest)
    if not path.is_file() or _num_rows(path) <= _SMALL_ROWS:
        _convert(conversion)
        return
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        input=conversion.model_dump_json(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == EXIT_USER:
        kind, what, remedy, where = json.loads(done.stdout)
        raise (ManifestError if kind == "ManifestError" else StorageError)(what, remedy, where)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise StorageError(
            f"the process that converts the manifest ended: {last}",
            "Check the memory and the temporary folder of this node.",
            conversion.manifest,
        )


def _num_rows(path: Path) -> int:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowInvalid, OSError):
        return 0  # the conversion says what is wrong


def _convert(conversion: Conversion) -> None:
    check_manifest(conversion.manifest)
    target = Path(conversion.target)
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        _write(conversion, partial)
        partial.replace(target)
    except OSError as error:
        raise StorageError(
            f"the rows of the manifest cannot be written: {error.strerror}",
            "Make room in the temporary folder of this node, or set TMPDIR.",
            str(target.parent),
        ) from None
    finally:
        partial.unlink(missing_ok=True)


def _write(conversion: Conversion, target: Path) -> None:
    path, where = conversion.manifest, conversion.where.rows()
    mixture = conversion.mixture
    if mixture is None:
        sizes = {"": (where, sum(b.num_rows for b in scan_manifest(path, ("split",), where)))}
    else:
        sizes = _data_sets(conversion, mixture, where)
    if not sum(count for _, count in sizes.values()):
        total = sum(batch.num_rows for batch in scan_manifest(path, ("split",)))
        shown = conversion.where.model_dump(exclude_none=True)
        what = f"no row of {total} passes the filter {shown}"
        raise ManifestError(what, "Change data.where, or the manifest.", path)
    counts = {name: count for name, (_, count) in sizes.items()}
    schema = _columns(next(scan_manifest(path, STREAM_COLUMNS)), path).schema
    schema = schema.with_metadata({SIZES: json.dumps(counts)} if mixture else None)
    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        parts = (scan_manifest(path, STREAM_COLUMNS, keep) for keep, _ in sizes.values())
        rows = (_columns(batch, path) for part in parts for batch in part)
        for batch in _even(rows):
            writer.write_batch(batch)


def _columns(batch: pa.RecordBatch, path: str) -> pa.RecordBatch:
    return ready_to_read(batch, Path(path).resolve().parent)


def _even(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of `BATCH_ROWS`, so that the position of a row is known."""
    pending: list[pa.RecordBatch] = []
    num_pending = 0
    for batch in batches:
        while batch.num_rows:
            taken = batch.slice(0, BATCH_ROWS - num_pending)
            pending.append(taken)
            num_pending += taken.num_rows
            batch = batch.slice(taken.num_rows)
            if num_pending == BATCH_ROWS:
                yield pa.concat_batches(pending)
                pending, num_pending = [], 0
    if pending:
        yield pa.concat_batches(pending)


def _data_sets(
    conversion: Conversion, mixture: MixtureConfig, where: RowFilter
) -> dict[str, tuple[RowFilter, int]]:
    """Filter and number of rows of each data set, in the mixture's order."""
    path, by = conversion.manifest, mixture.by
    columns = next(scan_manifest(path)).schema
    if by not in columns.names:
        raise ManifestError(
            f"there is no column {by!r} to name data sets; there are {columns.names}",
            "Name one of them in data.mixture.by.",
            path,
        )
    if pa.types.is_primitive(columns.field(by).type) or pa.types.is_nested(columns.field(by).type):
        raise ManifestError(
            f"column {by!r} holds {columns.field(by).type}, not names of data sets",
            "Name a text column in data.mixture.by.",
            path,
        )
    found: dict[str, int] = {}
    for batch in scan_manifest(path, (by,), RowFilter(where.expression, (*where.columns, by))):
        for count in pc.value_counts(batch[by].cast(pa.string())).to_pylist():
            found[count["values"]] = found.get(count["values"], 0) + count["counts"]
    for name in mixture.shares:
        if not found.get(name):
            known = sorted(value for value in found if value is not None)
            raise ManifestError(
                f"no row that passes the filter has {by} {name!r}; there are {known}",
                "Change data.mixture.shares, data.where or the manifest.",
                path,
            )
    return {name: (where.among(by, [name]), found[name]) for name in mixture.per_period()}


def main() -> int:
    """Convert what standard input says."""
    try:
        _convert(Conversion.model_validate_json(sys.stdin.read()))
    except (ManifestError, StorageError) as error:
        sys.stdout.write(json.dumps([type(error).__name__, *error.args]))
        return EXIT_USER
    return 0


if __name__ == "__main__":
    sys.exit(main())
