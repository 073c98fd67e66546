"""What a probe predicts, and the labelled clips it learns from and is judged on."""

from __future__ import annotations

import hashlib
import heapq
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import model_validator

from echojepa.config import FolderName, Strict
from echojepa.data.manifest.file import check_manifest, read_ready, scan_manifest
from echojepa.data.manifest.schema import STREAM_COLUMNS, RowFilter, has_value, is_number
from echojepa.errors import ManifestError

IDENTITY = ("patient_id", "study_id", "split", "view", "doppler")
"""What probes read of a clip beside its label."""


class Slot(Strict):
    """A kind of clip that a study may have."""

    view: str
    """Its view."""
    doppler: Literal["none", "colour", "spectral"] | None = None
    """Its Doppler mode; null takes any."""

    @property
    def name(self) -> str:
        """For people and files."""
        return self.view if self.doppler is None else f"{self.view} {self.doppler}"

    def expression(self) -> pc.Expression:
        """The clips that fit."""
        fits = pc.field("view") == self.view
        return fits if self.doppler is None else fits & (pc.field("doppler") == self.doppler)


class Task(Strict):
    """One thing to predict from frozen features."""

    name: FolderName
    """Under which results are reported."""
    label: str
    """Manifest column, in raw units."""
    kind: Literal["regression", "classification"]
    """Whether the label is a number or a class."""
    views: tuple[str, ...] | None = None
    """Only clips of these views; null takes all."""
    doppler: tuple[Literal["none", "colour", "spectral"], ...] | None = None
    """Only clips of these Doppler modes; null takes all."""
    min_frames: int = 1
    """Only clips with so many native frames, which leaves out stills."""
    slots: tuple[Slot, ...] = ()
    """What a study is judged by together: one clip of each kind, where there is one. None judges
    every clip by itself."""
    unit: str = ""
    """Of a regression label, for reports."""
    level: Literal["clip", "study"] | None = None
    """What is judged: clips, or studies by the mean of what is said of their clips. Null judges
    studies by numbers and clips by classes."""
    cutoffs: tuple[float, ...] = ()
    """Of a regression label, in raw units: is being below each of them told apart?"""

    @property
    def by_study(self) -> bool:
        """Whether studies are judged."""
        usual = "study" if self.slots or self.kind == "regression" else "clip"
        return (self.level or usual) == "study"

    @model_validator(mode="after")
    def _fitting(self) -> Task:
        if self.cutoffs and self.kind == "classification":
            raise ValueError("cutoffs are of regression labels")
        if self.slots and (self.level == "clip" or self.views is not None):
            raise ValueError("slots are of studies, and say their views themselves")
        if len({slot.name for slot in self.slots}) < len(self.slots):
            raise ValueError("two slots are of the same kind")
        return self


@dataclass(frozen=True)
class Labels:
    """Labels of clips, keyed by clip id."""

    task: Task
    clip_ids: list[str]
    patients: NDArray[np.str_]
    """Whose clips they are, [n]."""
    studies: NDArray[np.str_]
    """Of which examination, [n]."""
    splits: NDArray[np.str_]
    """train, val or test, [n]."""
    values: NDArray[Any]
    """float64 for regression, str for classification, [n]."""
    groups: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)
    """By column, such as the vendor: what the manifest says of the clips, [n]."""

    def weights(self) -> NDArray[np.float64]:
        """How much a clip counts in training, [n]: together, those of a study as much as any."""
        if not self.task.by_study:
            return np.ones(len(self.clip_ids))
        _, group, counts = np.unique(self.studies, return_inverse=True, return_counts=True)
        return np.asarray(1.0 / counts[group])


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
    if task.kind == "regression" and not is_number(kind):
        raise ManifestError(
            f"task {task.name!r} needs numbers, and the column {task.label!r} holds {kind}",
            "Name another label, or make it a classification.",
        )
    keep = has_value(task.label, schema) & pc.field("split").is_valid()
    keep &= chosen(task).expression
    return RowFilter(keep, (task.label, "split", *chosen(task).columns))


def chosen(task: Task) -> RowFilter:
    """The clips that a task looks at, labelled or not."""
    keep = pc.scalar(True)
    if task.min_frames > 1:
        keep &= pc.field("num_frames") >= task.min_frames
    for name, wanted in (("view", task.views), ("doppler", task.doppler)):
        if wanted is not None:
            keep &= pc.field(name).isin(pa.array(wanted, pa.string()))
    if task.slots:
        keep &= reduce(operator.or_, (slot.expression() for slot in task.slots))
    return RowFilter(keep, ("num_frames", "view", "doppler"))


def read_labelled(
    manifest: str | Path, tasks: Sequence[Task], groups: Sequence[str] = ()
) -> pa.Table:
    """The rows that some task can use: what is needed to read, encode and judge them.

    Args:
        groups: further columns, of which those are read that there are.

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
    there = (name for name in groups if name in schema.names)
    columns = dict.fromkeys((*STREAM_COLUMNS, *IDENTITY, *(task.label for task in tasks), *there))
    return read_ready(manifest, tuple(columns), keep)


def labelled_rows(
    table: pa.Table, task: Task, splits: tuple[str, ...] = ("train", "val")
) -> pa.Table:
    """The rows of a table that a task can use.

    Args:
        splits: of which there must be some.

    Raises:
        ManifestError: see `usable`; or there is no labelled clip in one of `splits`, train holds a
            single class, or a study that is judged has several labels or patients.
    """
    rows = table.filter(usable(task, table.schema).expression)
    require_labels(rows, task, splits)
    if task.by_study:
        _require_one_label_per_study(rows, task)
        require_one_patient_per_study(rows)
    return rows


def with_clips(rows: pa.Table, clip_ids: Iterable[str]) -> pa.Table:
    """The rows of these clips."""
    return rows.filter(pc.is_in(rows["clip_id"], pa.array(list(clip_ids), pa.string())))


def _require_one_label_per_study(rows: pa.Table, task: Task) -> None:
    several = _studies_of_several(rows, task.label)
    if several:
        raise ManifestError(
            f"task {task.name!r} judges studies, and study {several[0]!r} has "
            f"several values of {task.label!r}",
            "Set the task's level to clip, or give the study one value.",
        )


def require_one_patient_per_study(rows: pa.Table) -> None:
    """Raise `ManifestError` if a study's clips are of several patients: it would mix them up."""
    several = _studies_of_several(rows, "patient_id")
    if several:
        raise ManifestError(
            f"study {several[0]!r} has clips of several patients; {len(several)} such study(ies)",
            "Give every study an id of its own, that of its patient in front for instance.",
        )


def _studies_of_several(rows: pa.Table, column: str) -> list[str]:
    """Ids of the studies that have several values in a column."""
    per_study = rows.group_by("study_id").aggregate([(column, "count_distinct")])
    several = per_study.filter(pc.greater(per_study[f"{column}_count_distinct"], 1))
    found: list[str] = several["study_id"].to_pylist()
    return sorted(found)


def require_labels(rows: pa.Table, task: Task, splits: tuple[str, ...]) -> None:
    """Raise `ManifestError` unless every split has a row, and train, if it is one, two classes."""
    for split in splits:
        if not pc.any(pc.equal(rows["split"], split)).as_py():
            raise ManifestError(
                f"task {task.name!r} has no readable labelled clip in split {split!r}",
                "Label some, or split the manifest again.",
            )
    classes = pc.unique(rows.filter(pc.equal(rows["split"], "train"))[task.label]).to_pylist()
    if task.kind == "classification" and "train" in splits and len(classes) < 2:
        raise ManifestError(
            f"task {task.name!r} has the single class {classes[0]!r} in split 'train'",
            "Label clips of another class, or drop the task.",
        )


def labels_of(rows: pa.Table, task: Task, groups: Sequence[str] = ()) -> Labels:
    """Labels of `labelled_rows`, and those columns of `groups` that there are."""
    dtype: Any = np.float64 if task.kind == "regression" else str

    def names(column: str) -> NDArray[np.str_]:
        return np.array(["unknown" if v is None else str(v) for v in rows[column].to_pylist()], str)

    return Labels(
        task=task,
        clip_ids=rows["clip_id"].to_pylist(),
        patients=np.array(rows["patient_id"].to_pylist(), dtype=str),
        studies=np.array(rows["study_id"].to_pylist(), dtype=str),
        splits=np.array(rows["split"].to_pylist(), dtype=str),
        values=np.array(rows[task.label].to_pylist(), dtype=dtype),
        groups={name: names(name) for name in groups if name in rows.column_names},
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
    found = read_ready(manifest, (*STREAM_COLUMNS, task.label), chosen)
    rows = {row["clip_id"]: row for row in found.to_pylist()}
    return {split: [rows[clip_id] for clip_id in ids] for split, ids in picked.items()}
