"""What must hold of a manifest's rows, each for itself and between them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from echojepa.data.manifest.schema import ABOVE_ZERO, DOPPLER, SCHEMA, SPLITS
from echojepa.errors import ManifestError

_MEMORY_LIMIT = "512MB"
_MOST_THREADS = 4
Scan = Callable[[tuple[str, ...]], Iterator[pa.RecordBatch]]
"""Streams some columns of the rows, from the first one on."""


def check_rows(scan: Scan, where: str) -> None:
    """Check all rows; see `file.read_manifest` for what is wrong."""
    num_rows = 0
    for batch in scan(tuple(name for name in SCHEMA.names if name != "content_hash")):
        for field in SCHEMA:
            if field.nullable or not batch[field.name].null_count:
                continue
            row = num_rows + pc.index(batch[field.name].is_null(), True).as_py()
            raise ManifestError(f"column {field.name!r} is null in row {row}", "Fill it.", where)
        _check_numbers(batch, where)
        for name, allowed in (("split", SPLITS), ("doppler", DOPPLER)):
            _check_names(batch, name, allowed, where)
        num_rows += batch.num_rows
    if not num_rows:
        raise ManifestError("the manifest has no rows", "Write at least one clip.", where)
    _check_unique(scan, where)
    _check_patient_disjoint(scan, where)


def _check_numbers(batch: pa.RecordBatch, where: str) -> None:
    for name in ABOVE_ZERO:
        possible = pc.and_(pc.greater(batch[name], 0), pc.less(batch[name], float("inf")))
        bad = pc.invert(pc.fill_null(possible, True))
        if pc.any(bad).as_py():
            row = pc.index(bad, True).as_py()
            clip = batch["clip_id"][row].as_py()
            raise ManifestError(
                f"{name} = {batch[name][row].as_py()} of clip {clip!r} is not a number above 0",
                "Measure it again, or leave the clip out.",
                where,
            )


def _check_names(batch: pa.RecordBatch, name: str, allowed: tuple[str, ...], where: str) -> None:
    found = set(pc.unique(batch[name]).to_pylist()) - {None, *allowed}
    if found:
        raise ManifestError(
            f"{name} {sorted(found)[0]!r} is not one of {', '.join(allowed)}",
            "Rename it, or set it to null.",
            where,
        )


def _check_unique(scan: Scan, where: str) -> None:
    found = ask(
        scan,
        ("clip_id",),
        "select clip_id, count(*) from clips group by clip_id having count(*) > 1 limit 1",
    )
    if found:
        clip_id, count = found[0]
        raise ManifestError(
            f"clip_id {clip_id!r} occurs {count} times", "Give every clip an id of its own.", where
        )


def _check_patient_disjoint(scan: Scan, where: str) -> None:
    found = ask(
        scan,
        ("patient_id", "split"),
        """
        select patient_id, min(split), max(split), count(*) over () from clips
        where split is not null group by patient_id having min(split) <> max(split)
        order by patient_id limit 1
        """,
    )
    if found:
        patient, one, other, count = found[0]
        raise ManifestError(
            f"patient {patient!r} is in two splits ({one} and {other}); {count} such patient(s)",
            "Assign splits by patient: `echojepa manifest split` does.",
            where,
        )


def ask(scan: Scan, columns: tuple[str, ...], query: str) -> list[tuple[Any, ...]]:
    """Ask DuckDB about the rows, as table `clips`; it spills to disk what does not fit."""
    batches = scan(columns)
    first = next(batches)
    reader = pa.RecordBatchReader.from_batches(first.schema, _chained(first, batches))
    with database() as connection:
        connection.register("clips", reader)
        return connection.execute(query).fetchall()


@contextmanager
def database(file: str = ":memory:") -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB that shares the machine and spills to disk; goes away with what is in it.

    Args:
        file: name of its file; by default its tables are in memory.
    """
    with tempfile.TemporaryDirectory() as folder:
        where = file if file == ":memory:" else str(Path(folder) / file)
        threads = min(_MOST_THREADS, os.cpu_count() or 1)
        config: dict[str, Any] = {
            "memory_limit": _MEMORY_LIMIT,
            "threads": threads,
            "temp_directory": folder,
        }
        with duckdb.connect(where, config=config) as connection:
            connection.execute("set enable_progress_bar = false")
            yield connection


def _chained(first: pa.RecordBatch, others: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from others
