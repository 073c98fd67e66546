"""Manifest files: read, filtered and written as streams of row batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from echojepa.data.manifest.check import check_rows
from echojepa.data.manifest.schema import RowFilter, all_columns, standard, with_durations
from echojepa.errors import ManifestError, first_line

_BATCH_ROWS = 1 << 17


def read_manifest(
    path: str | Path, columns: Iterable[str] | None = None, keep: RowFilter | None = None
) -> pa.Table:
    """Check a whole manifest, and read some of it.

    Args:
        columns: all by default.
        keep: all rows by default.

    Raises:
        ManifestError: missing file, missing or mistyped column, null or repeated id, impossible
            number, unknown split, or a patient in two splits.
    """
    check_manifest(path)
    wanted = None if columns is None else tuple(columns)
    batches = list(scan_manifest(path, wanted, keep))
    return pa.Table.from_batches(batches)


def check_manifest(path: str | Path) -> None:
    """Raise `ManifestError` unless a manifest holds what it must; see `read_manifest`."""
    check_rows(lambda columns: scan_manifest(path, columns), str(path))


def scan_manifest(
    path: str | Path, columns: tuple[str, ...] | None = None, keep: RowFilter | None = None
) -> Iterator[pa.RecordBatch]:
    """Rows of a manifest that has been checked, in file order, in standard types.

    Never more than some 100,000 rows are in memory. At least one batch comes, if an empty one.
    """
    where = str(path)
    with _opened(Path(path)) as file:
        names = file.schema_arrow.names
        every = all_columns(names)
        wanted = list(columns if columns is not None else every)
        needed = {*wanted, *(keep.columns if keep else ())}
        made = tuple(name for name in every if name in needed)
        yield standard(_empty(file.schema_arrow), where, every).select(wanted)
        read = [name for name in names if name in needed]
        # One row group after the other: asked for all of them, Arrow decodes many ahead.
        groups = ([number] for number in range(file.num_row_groups))
        try:
            for batch in chain.from_iterable(
                file.iter_batches(_BATCH_ROWS, row_groups=group, columns=read) for group in groups
            ):
                rows = standard(batch, where, made)
                kept = rows.filter(keep.expression) if keep else rows
                if kept.num_rows:
                    yield kept.select(wanted)
        except (pa.ArrowInvalid, OSError) as error:
            raise _not_parquet(error, path) from None


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], f.type) for f in schema], schema=schema)


def _opened(path: Path) -> pq.ParquetFile:
    if not path.is_file():
        raise ManifestError(
            "no such manifest",
            "Check the path, or write one with `echojepa manifest` or `echojepa phantom`.",
            str(path),
        )
    try:
        return pq.ParquetFile(path, buffer_size=1 << 20)  # or whole columns of a row group
    except (pa.ArrowInvalid, OSError) as error:
        raise _not_parquet(error, path) from None


def _not_parquet(error: Exception, path: str | Path) -> ManifestError:
    return ManifestError(f"not a Parquet file: {first_line(error)}", "Rebuild it.", str(path))


def write_manifest(rows: pa.Table | Iterable[pa.RecordBatch], path: str | Path) -> Path:
    """Write rows as a manifest and check it, atomically. Returns the path.

    Raises:
        ManifestError: see `read_manifest`; nothing is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    if isinstance(rows, pa.Table):
        rows = rows.to_batches() or [_empty(rows.schema)]
    try:
        _write(iter(rows), partial, str(path))
        check_rows(lambda columns: scan_manifest(partial, columns), str(path))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _write(batches: Iterator[pa.RecordBatch], target: Path, where: str) -> None:
    first = next(batches, None)
    if first is None:
        raise ManifestError("the manifest has no rows", "Write at least one clip.", where)
    columns = all_columns(first.schema.names)
    begun = standard(first, where, columns)
    with pq.ParquetWriter(target, begun.schema) as writer:
        writer.write_batch(begun)
        for batch in batches:
            writer.write_batch(standard(batch, where, columns))


def manifest_fingerprint(path: str | Path) -> str:
    """SHA-256 of the manifest file: any change of any byte is another manifest."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def with_absolute_uris(batch: pa.RecordBatch, base: Path) -> pa.RecordBatch:
    """Local paths in `uri`, relative to the manifest's folder `base`, made absolute."""
    uris = batch["uri"]
    stands = pc.or_(pc.match_substring(uris, "://"), pc.starts_with(uris, "/"))
    joined = pc.binary_join_element_wise(pa.scalar(str(base)), uris, "/")
    absolute = pc.if_else(stands, uris, joined)
    return batch.set_column(batch.schema.get_field_index("uri"), "uri", absolute)


def read_ready(
    path: str | Path, columns: tuple[str, ...], keep: RowFilter | None = None
) -> pa.Table:
    """Some rows of a manifest that has been checked, ready to read.

    Args:
        columns: `STREAM_COLUMNS` and perhaps others.
        keep: all rows by default.
    """
    base = Path(path).resolve().parent
    batches = scan_manifest(path, columns, keep)
    return pa.Table.from_batches([ready_to_read(batch, base) for batch in batches])


def ready_to_read(batch: pa.RecordBatch, base: Path) -> pa.RecordBatch:
    """Rows with absolute paths, and a duration for every clip."""
    return with_durations(with_absolute_uris(batch, base))
