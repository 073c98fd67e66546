"""What a probe predicts, and the labelled clips it learns from and is judged on."""

from __future__ import annotations

import hashlib
import heapq
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from echojepa.config import Strict
from echojepa.data.manifest.file import check_manifest, ready_to_read, scan_manifest
from echojepa.data.manifest.schema import STREAM_COLUMNS, RowFilter
from echojepa.errors import ManifestError

IDENTITY = ("patient_id", "split", "view")
"""What probes read of a clip beside its label."""


class Task(Strict):
    """One thing to predict from frozen features."""

    name: str
    """Under which results are reported."""
    label: str
    """Manifest column, in raw units."""
    kind: Literal["regression", "classification"]
    """Whether the label is a number or a class."""
    views: tuple[str, ...] | None = None
    """Only clips of these views; null takes all."""
    unit: str = ""
    """Of a regression label, for reports."""


@dataclass(frozen=True)
class Labels:
    """Labels of clips, keyed by clip id."""

    clip_ids: list[str]
    patients: NDArray[np.str_]
    """Whose clips they are, [n]."""
    splits: NDArray[np.str_]
    """train, val or test, [n]."""
    values: NDArray[Any]
    """float64 for regression, str for classification, [n]."""


def usable(task: Task, schema: pa.Schema) -> RowFilter:
    """The rows of a manifest that a task can use: labelled, of its views, with a split.

    Raises:
        ManifestError: the label's column is missing, or a regression's holds no numbers.
    """
    if task.label not in schema.names:
        raise ManifestError(
            f"task {task.name!r} needs the column {task.label!r}", "Add it, or drop the task."
        )
    kind = schema.field(task.label).type
    is_number = pa.types.is_floating(kind) or pa.types.is_integer(kind)
    if task.kind == "regression" and not is_number:
        raise ManifestError(
            f"task {task.name!r} needs numbers, and the column {task.label!r} holds {kind}",
            "Name another label, or make it a classification.",
        )
    label = pc.field(task.label)
    keep = label.is_valid() & pc.field("split").is_valid()
    if pa.types.is_floating(kind):
        keep &= pc.is_finite(label)
    if task.views is not None:
        keep &= pc.field("view").isin(pa.array(task.views, pa.string()))
    return RowFilter(keep, (task.label, "split", "view"))


def read_labelled(manifest: str | Path, tasks: Sequence[Task]) -> pa.Table:
    """The rows that some task can use: what is needed to read, encode and judge them.

    Raises:
        ManifestError: the manifest is bad, or lacks what a task needs.
    """
    check_manifest(manifest)
    schema = next(scan_manifest(manifest)).schema
    filters = [usable(task, schema) for task in tasks]
    keep = RowFilter(
        reduce(operator.or_, (f.expression for f in filters)),
        tuple({name for f in filters for name in f.columns}),
    )
    columns = dict.fromkeys((*STREAM_COLUMNS, *IDENTITY, *(task.label for task in tasks)))
    base = Path(manifest).resolve().parent
    rows = scan_manifest(manifest, tuple(columns), keep)
    return pa.Table.from_batches([ready_to_read(batch, base) for batch in rows])


def labelled_rows(table: pa.Table, task: Task) -> pa.Table:
    """The rows of a table that a task can use.

    Raises:
        ManifestError: see `usable`; or there is no labelled clip in train or val, or train holds a
            single class.
    """
    rows = table.filter(usable(task, table.schema).expression)
    require_labels(rows, task, ("train", "val"))
    return rows


def require_labels(rows: pa.Table, task: Task, splits: tuple[str, ...]) -> None:
    """Raise `ManifestError` unless every split has a row, and train two classes to tell apart."""
    for split in splits:
        if not pc.any(pc.equal(rows["split"], split)).as_py():
            raise ManifestError(
                f"task {task.name!r} has no readable labelled clip in split {split!r}",
                "Label some, or split the manifest again.",
            )
    classes = pc.unique(rows.filter(pc.equal(rows["split"], "train"))[task.label]).to_pylist()
    if task.kind == "classification" and len(classes) < 2:
        raise ManifestError(
            f"task {task.name!r} has the single class {classes[0]!r} in split 'train'",
            "Label clips of another class, or drop the task.",
        )


def labels_of(rows: pa.Table, task: Task) -> Labels:
    """Labels of `labelled_rows`."""
    dtype: Any = np.float64 if task.kind == "regression" else str
    return Labels(
        clip_ids=rows["clip_id"].to_pylist(),
        patients=np.array(rows["patient_id"].to_pylist(), dtype=str),
        splits=np.array(rows["split"].to_pylist(), dtype=str),
        values=np.array(rows[task.label].to_pylist(), dtype=dtype),
    )


def pick(clip_ids: Iterable[str], number: int, seed: int) -> list[str]:
    """The first `number` clips in a random order keyed by their ids, always the same."""

    def key(clip_id: str) -> bytes:
        return hashlib.blake2b(f"{seed}/{clip_id}".encode(), digest_size=8).digest()

    return heapq.nsmallest(number, clip_ids, key)


def pick_labelled(
    manifest: str | Path, task: Task, numbers: Mapping[str, int], seed: int
) -> dict[str, list[dict[str, Any]]]:
    """By split, at most so many rows that a task can use, always the same, ready to read.

    The manifest is streamed and not checked again; opening the clips of a run has checked it.

    Raises:
        ManifestError: see `usable`.
    """
    keep = usable(task, next(scan_manifest(manifest)).schema)
    picked: dict[str, list[str]] = {split: [] for split in numbers}
    for batch in scan_manifest(manifest, ("clip_id", "split"), keep):
        for split, number in numbers.items():
            here = batch.filter(pc.field("split") == split)["clip_id"].to_pylist()
            picked[split] = pick([*picked[split], *here], number, seed)
    every = pa.array([clip_id for ids in picked.values() for clip_id in ids], pa.string())
    chosen = RowFilter(pc.field("clip_id").isin(every), ("clip_id",))
    base = Path(manifest).resolve().parent
    rows = {
        row["clip_id"]: row
        for batch in scan_manifest(manifest, (*STREAM_COLUMNS, task.label), chosen)
        for row in ready_to_read(batch, base).to_pylist()
    }
    return {split: [rows[clip_id] for clip_id in ids] for split, ids in picked.items()}
