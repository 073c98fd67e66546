"""Good rows go on, bad ones are written down with their reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from echojepa.data.manifest.verify import NOTES, REJECTED, Judged
from echojepa.data.problem import Problem, raise_if_storage_failed

_NUM_SHOWN = 20


class Sieve:
    """Judged rows in, good ones out; keeps the counts and writes the table of the others."""

    def __init__(self, schema: pa.Schema, rejected: Path | None) -> None:
        """Begin with nothing counted.

        Args:
            schema: of the good rows.
            rejected: Parquet file for the bad ones; None writes none. An old one is removed.
        """
        self._schema = schema
        self._target = rejected
        self.num_good = 0
        self.kinds: Counter[str] = Counter()
        """How often each kind of problem came up."""
        self.notes: Counter[str] = Counter()
        """How often each thing was noted of a good row."""
        self.examples: list[str] = []
        """The first few bad rows, for people."""
        if rejected is not None:
            rejected.unlink(missing_ok=True)

    @property
    def num_bad(self) -> int:
        """Rows that can't be used."""
        return self.kinds.total()

    def good(self, chunks: Iterable[list[Judged]]) -> Iterator[pa.RecordBatch]:
        """Batches of good rows.

        Raises:
            StorageError: a file could not be read because its storage fails.
        """
        writer: pq.ParquetWriter | None = None
        try:
            for judged in chunks:
                raise_if_storage_failed(problem for _, problem in judged)
                bad = [self._note(row, problem) for row, problem in judged if problem is not None]
                if bad and self._target is not None:
                    if writer is None:
                        self._target.parent.mkdir(parents=True, exist_ok=True)
                        writer = pq.ParquetWriter(self._target, REJECTED)
                    writer.write_table(pa.Table.from_pylist(bad, REJECTED))
                rows = [row for row, problem in judged if problem is None]
                self.num_good += len(rows)
                self.notes.update(note for row in rows for note in row.get(NOTES, ()))
                if rows:
                    yield pa.RecordBatch.from_pylist(rows, self._schema)
        finally:
            if writer is not None:
                writer.close()

    def drain(self, chunks: Iterable[list[Judged]]) -> None:
        """Count and write down the bad rows; the good ones go nowhere."""
        for _ in self.good(chunks):
            pass

    def _note(self, row: dict[str, Any], problem: Problem) -> dict[str, Any]:
        self.kinds[problem.kind] += 1
        if len(self.examples) < _NUM_SHOWN:
            self.examples.append(f"{row['clip_id']}: {problem}")
        return {"clip_id": row["clip_id"], "uri": row["uri"], **problem._asdict()}
