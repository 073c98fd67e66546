"""Labels of clips as networks learn them: numbers standardised, classes numbered.

Labels belong to rows of a manifest. A clip without a label, or of a view that a label is not
learnt from, has none: it is `MISSING`, and counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from echojepa.config import Strict
from echojepa.data.block import DataConfig
from echojepa.data.manifest.file import scan_manifest
from echojepa.data.manifest.schema import has_value, is_number
from echojepa.errors import ManifestError

MISSING = np.nan


class LabelConfig(Strict):
    """One label that is learnt."""

    column: str
    """Of the manifest."""
    kind: Literal["regression", "classification"]
    """Whether it is a number or a class."""
    views: tuple[str, ...] | None = None
    """Learnt from clips of these views alone; null takes all."""
    weight: float = Field(1.0, gt=0)
    """Of its loss beside the others'."""


@dataclass(frozen=True)
class Target:
    """One label of the clips that have it."""

    values: dict[str, float]
    """By clip id: deviations from the mean of all labels, in their standard deviation, or the
    number of the class."""
    classes: tuple[str, ...]
    """Of a class, in order; none for numbers."""

    def of(self, clip_ids: Iterable[str]) -> NDArray[np.float32]:
        """Of these clips, [B]."""
        return np.array([self.values.get(clip_id, MISSING) for clip_id in clip_ids], np.float32)


def read_targets(labels: Sequence[LabelConfig], data: DataConfig) -> list[Target]:
    """The labels of the rows that a run uses.

    Raises:
        ManifestError: a column is missing, a regression's holds no numbers, no clip of the run has
            the label, or all have the same.
    """
    there = next(scan_manifest(data.manifest)).schema.names
    for label in labels:
        if label.column not in there:
            raise ManifestError(
                f"objective.labels needs the column {label.column!r}",
                "Add the column, or drop the label.",
                data.manifest,
            )
    columns = tuple(dict.fromkeys(["clip_id", "view", *(label.column for label in labels)]))
    batches = list(scan_manifest(data.manifest, columns, data.where.rows()))
    rows = pa.Table.from_batches(batches)
    return [_target(label, rows, data.manifest) for label in labels]


def _target(label: LabelConfig, rows: pa.Table, where: str) -> Target:
    kind = rows.schema.field(label.column).type
    if label.kind == "regression" and not is_number(kind):
        raise ManifestError(
            f"objective.labels needs numbers, and the column {label.column!r} holds {kind}",
            "Give it numbers, or learn it as a classification.",
            where,
        )
    learnt = rows.filter(has_value(label.column, rows.schema))
    if label.views is not None:
        learnt = learnt.filter(pc.field("view").isin(pa.array(label.views, pa.string())))
    columns = (learnt[name].to_pylist() for name in ("clip_id", label.column))
    known = dict(zip(*columns, strict=True))
    if len(set(known.values())) < 2:
        raise ManifestError(
            f"{len(known)} clips have the label {label.column!r}, and no two different ones",
            "Label more clips of the run's split and views, or drop it from objective.labels.",
            where,
        )
    if label.kind == "classification":
        classes = sorted({str(value) for value in known.values()})
        number = {name: float(index) for index, name in enumerate(classes)}
        return Target({k: number[str(v)] for k, v in known.items()}, tuple(classes))
    values = np.array(list(known.values()), float)
    mean, deviation = values.mean(), values.std()
    return Target({k: float((v - mean) / deviation) for k, v in known.items()}, ())
