"""What a probe predicts, and the labelled clips it learns from and is judged on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from echojepa.config import Strict
from echojepa.errors import ManifestError


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


def labelled_rows(table: pa.Table, task: Task) -> pa.Table:
    """The rows of a manifest that a task can use: labelled, of its views, with a split.

    Raises:
        ManifestError: the column is missing, there is no labelled clip in train or val, or train
            holds a single class.
    """
    if task.label not in table.column_names:
        raise ManifestError(
            f"task {task.name!r} needs the column {task.label!r}", "Add it, or drop the task."
        )
    label = table[task.label]
    keep = pc.and_(pc.is_valid(label), pc.is_valid(table["split"]))
    if pa.types.is_floating(label.type):
        keep = pc.and_(keep, pc.is_finite(label))
    if task.views is not None:
        keep = pc.and_(keep, pc.is_in(table["view"], pa.array(task.views, pa.string())))
    rows = table.filter(keep)
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
    """Labels of `labelled_rows`.

    Raises:
        ManifestError: the label of a regression is not a number.
    """
    kind = rows[task.label].type
    if task.kind == "regression" and not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise ManifestError(
            f"task {task.name!r} needs numbers, and the column {task.label!r} holds {kind}",
            "Name another label, or make it a classification.",
        )
    dtype: Any = np.float64 if task.kind == "regression" else str
    return Labels(
        clip_ids=rows["clip_id"].to_pylist(),
        patients=np.array(rows["patient_id"].to_pylist(), dtype=str),
        splits=np.array(rows["split"].to_pylist(), dtype=str),
        values=np.array(rows[task.label].to_pylist(), dtype=dtype),
    )


def pick(clip_ids: list[str], number: int, seed: int) -> list[int]:
    """Positions of `number` clips in a random order keyed by their ids, always the same."""

    def key(position: int) -> bytes:
        text = f"{seed}/{clip_ids[position]}"
        return hashlib.blake2b(text.encode(), digest_size=8).digest()

    return sorted(range(len(clip_ids)), key=key)[:number]
