"""Train, val and test by patient."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from echojepa.data.manifest.check import check_rows
from echojepa.data.manifest.file import scan_manifest, with_absolute_uris, write_manifest
from echojepa.data.manifest.schema import SPLITS
from echojepa.errors import ManifestError


def split_manifest(source: Path, target: Path, fractions: Sequence[float], seed: int) -> Path:
    """Write a manifest with new splits; its URIs stay valid, wherever it is written.

    Raises:
        ManifestError: `fractions` are not three shares, or the manifest is bad but for its splits.
    """
    _require_shares(fractions)
    check_rows(partial(_without_splits, source), str(source))
    base = source.resolve().parent
    rows = _without_splits(source, None)
    if target.resolve().parent != base:
        rows = (with_absolute_uris(batch, base) for batch in rows)
    return write_manifest(assign_splits(rows, fractions, seed), target)


def _without_splits(source: Path, columns: tuple[str, ...] | None) -> Iterator[pa.RecordBatch]:
    """The rows, all without a split."""
    for batch in scan_manifest(source, columns):
        if "split" in batch.schema.names:
            none = pa.nulls(batch.num_rows, pa.string())
            batch = batch.set_column(batch.schema.get_field_index("split"), "split", none)
        yield batch


def assign_splits(
    rows: Iterable[pa.RecordBatch], fractions: Sequence[float], seed: int
) -> Iterator[pa.RecordBatch]:
    """Give every patient a split (train, val, test) by a keyed hash of its id.

    A patient keeps its split when others are added. `fractions` are the three shares.

    Raises:
        ManifestError: they don't sum to 1.
    """
    _require_shares(fractions)
    edges = np.cumsum(fractions)
    key = str(seed).encode()

    def split_of(patient: str | None) -> str | None:
        if patient is None:
            return None
        digest = hashlib.blake2b(patient.encode(), key=key, digest_size=8).digest()
        position = int.from_bytes(digest, "little") / 2**64
        return SPLITS[min(int(np.searchsorted(edges, position, side="right")), 2)]

    for batch in rows:
        patients = batch["patient_id"].dictionary_encode()
        each = pa.array([split_of(p) for p in patients.dictionary.to_pylist()], pa.string())
        splits = each.take(patients.indices)
        yield batch.set_column(batch.schema.get_field_index("split"), "split", splits)


def _require_shares(fractions: Sequence[float]) -> None:
    if len(fractions) != 3 or not (min(fractions) >= 0 and abs(sum(fractions) - 1) <= 1e-6):
        raise ManifestError(
            f"split fractions {tuple(fractions)} are not three shares that sum to 1",
            "Write for instance 0.8,0.1,0.1.",
        )
