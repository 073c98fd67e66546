"""The reference's CSV files (`path label`, no header, space-delimited) as manifest rows.

They say nothing of patients, and paths must not be guessed from, so a second table does: a CSV with
the header `path,patient_id,study_id` and, if known, `view`. Both may have millions of lines: they
meet in a database on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from echojepa.data.decode.frames import ReadConfig
from echojepa.data.manifest.check import database
from echojepa.data.manifest.schema import SCHEMA
from echojepa.data.manifest.text_table import opened_table, opened_text
from echojepa.data.manifest.verify import CHUNK_ROWS, Judged, measure
from echojepa.data.problem import guarded
from echojepa.errors import ManifestError

_BATCH_LINES = 1 << 16
_LINES = pa.schema([("number", pa.int64()), ("path", pa.string()), ("value", pa.string())])
_IDENTITIES = pa.schema([(n, pa.string()) for n in ("path", "patient_id", "study_id", "view")])


class CsvFiles(NamedTuple):
    """What to import."""

    lines: Path
    """`path label` lines."""
    identities: Path
    """Who is on the videos."""
    label: str | None
    """Name of the label column; None drops the labels (pretraining CSVs hold zeros)."""


class CsvImport:
    """The lines of a CSV file of the reference, joined with who is on them."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, label: str | None) -> None:
        self._connection = connection
        self._label = label
        self.num_lines: int = connection.execute("select count(*) from lines").fetchall()[0][0]

    @property
    def schema(self) -> pa.Schema:
        """Of the rows it makes."""
        extra = [] if self._label is None else [pa.field(self._label, pa.float64())]
        return pa.schema([*SCHEMA, *extra])

    def chunks(self) -> Iterator[list[dict[str, Any]]]:
        """Rows without what their files say, in the order of lines, some at a time."""
        reader: Any = self._connection.sql(
            """
            select number, lines.path, value, patient_id, study_id, nullif(view, '') as view
            from lines join identities using (path) order by number
            """
        ).to_arrow_reader(_BATCH_LINES)
        for batch in reader:
            for start in range(0, batch.num_rows, CHUNK_ROWS):
                yield [self._row(line) for line in batch.slice(start, CHUNK_ROWS).to_pylist()]

    def _row(self, line: dict[str, Any]) -> dict[str, Any]:
        path = line["path"]
        row = {
            "clip_id": hashlib.blake2b(path.encode(), digest_size=8).hexdigest(),
            "patient_id": line["patient_id"],
            "study_id": line["study_id"],
            "uri": path if "://" in path else str(Path(path).resolve()),
            "view": line["view"],
        }
        return row if self._label is None else {**row, self._label: float(line["value"])}


def measure_rows(how: ReadConfig, rows: list[dict[str, Any]]) -> list[Judged]:
    """Add what the files say to rows of an import."""
    judged: list[Judged] = []
    for row in rows:
        found, problem = guarded(partial(measure, row["uri"], how))
        judged.append(({**row, **(found or {})}, problem))
    return judged


@contextmanager
def opened_csv(files: CsvFiles) -> Iterator[CsvImport]:
    """Read both files and check one against the other.

    Raises:
        ManifestError: a malformed line, the same video twice, a label that is no number, or a video
            without identity.
    """
    with database("import.db") as connection:
        _load(connection, "lines", _LINES, _lines(files.lines))
        _load(connection, "identities", _IDENTITIES, _identities(files.identities))
        _check(connection, files)
        yield CsvImport(connection, files.label)


def _load(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
) -> None:
    """Fill a new table batch by batch, so that an error of the source stays what it is."""
    for number, batch in enumerate(chain([schema.empty_table()], batches)):
        connection.register("arriving", batch)
        verb = f"insert into {name}" if number else f"create table {name} as"
        connection.execute(f"{verb} select * from arriving")
        connection.unregister("arriving")


def _check(connection: duckdb.DuckDBPyConnection, files: CsvFiles) -> None:
    """Raise `ManifestError` for the first line that can't become a row."""
    file, identities, label = files

    def first(query: str) -> Any:
        found = connection.execute(f"{query} limit 1").fetchall()
        return found[0] if found else None

    wrong = first("select path from identities group by path having count(*) > 1")
    if wrong:
        what = f"the video {wrong[0]} has several rows"
        raise ManifestError(what, "Leave one.", str(identities))
    wrong = first(
        "select min(number), max(number) from lines group by path having count(*) > 1 order by 1"
    )
    if wrong:
        what = f"lines {wrong[0]} and {wrong[1]} name the same video"
        raise ManifestError(what, "Drop one of them.", str(file))
    wrong = first("select number from lines anti join identities using (path) order by number")
    if wrong:
        what = f"line {wrong[0]} names a video that has no row in {identities.name}"
        raise ManifestError(what, "Add its patient_id and study_id.", str(file))
    wrong = first(
        """select number from lines join identities using (path)
        where patient_id = '' or study_id = '' order by number"""
    )
    if wrong:
        what = f"line {wrong[0]} names a video without patient or study in {identities.name}"
        raise ManifestError(what, "Add its patient_id and study_id.", str(file))
    wrong = label and first(
        "select number, value from lines where try_cast(value as double) is null order by number"
    )
    if wrong:
        what = f"the label of line {wrong[0]} is {wrong[1]!r}, not a number"
        raise ManifestError(what, "Fix the line, or omit --label.", str(file))


def _lines(file: Path) -> Iterator[pa.RecordBatch]:
    """The lines that are not blank, with their numbers in the file."""
    with opened_text(file) as opened:
        numbered = ((n, text.strip()) for n, text in enumerate(opened, start=1))
        yield from _batches(_LINES, (_parts(n, text, file) for n, text in numbered if text))


def _parts(number: int, text: str, file: Path) -> tuple[Any, ...]:
    path, space, value = text.rpartition(" ")
    if not space:
        raise ManifestError(
            f"line {number} is not `path label`", "Separate the two by a space.", str(file)
        )
    return number, path, value


def _identities(file: Path) -> Iterator[pa.RecordBatch]:
    """Who is on which video; errors name lines, never what stands in them."""
    with opened_table(file) as (header, rows):
        missing = [name for name in _IDENTITIES.names[:3] if name not in header]
        if missing:
            raise ManifestError(
                f"the header lacks {', '.join(missing)}",
                "Write path,patient_id,study_id[,view].",
                str(file),
            )
        where = [header.index(name) if name in header else None for name in _IDENTITIES.names]
        found = (tuple(None if i is None else cells[i] for i in where) for _, cells in rows)
        yield from _batches(_IDENTITIES, found)


def _batches(schema: pa.Schema, rows: Iterator[tuple[Any, ...]]) -> Iterator[pa.RecordBatch]:
    while some := list(islice(rows, _BATCH_LINES)):
        columns = zip(*some, strict=True)
        arrays = [
            pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)
