"""Extraction in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from echojepa.data.problem import Problem
from echojepa.probes.extraction import Columns, Extractor, Loader

MISSING = Problem("open", "missing", "no such file")


@dataclass
class Here:
    """An `Executor`; what it has computed once it knows."""

    unreadable: frozenset[str] = frozenset()
    """Clips that turn out to be unreadable."""
    known: dict[str, Columns] = field(default_factory=dict)
    num_blocks: int = 0
    """How many it was asked for."""

    def map(self, function: Callable[[Any], Any], inputs: Iterable[Any]) -> Iterator[Any]:
        """Results in order."""
        return map(function, inputs)

    def extract(
        self, blocks: Sequence[pa.Table], load: Loader, build: Callable[[], Extractor]
    ) -> Iterator[Columns]:
        """Block by block."""
        extractor = None
        for block in blocks:
            self.num_blocks += 1
            key = repr((block["clip_id"].to_pylist(), block["uri"].to_pylist(), vars(load), build))
            if key not in self.known:
                extractor = extractor or build()
                self.known[key] = extractor(load(block.to_pylist()))
            yield self._without_unreadable(self.known[key])

    def without(self, clip_ids: Iterable[str]) -> Here:
        """The same, some of whose clips cannot be read."""
        return Here(frozenset(clip_ids), self.known)

    def _without_unreadable(self, columns: Columns) -> Columns:
        bad = np.array([clip_id in self.unreadable for clip_id in columns["clip_id"]])
        found = dict(columns)
        found["problem"] = np.where(bad, MISSING.to_text(), columns["problem"])
        for name, values in columns.items():
            if name.startswith("pooled:"):
                found[name] = np.where(bad[:, None, None], np.nan, values).astype(np.float32)
        return found
