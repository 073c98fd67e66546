"""Probes on made-up features: rows of a manifest, vectors that know their labels, fitted probes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from echojepa.probes.examples import Material, examples_of
from echojepa.probes.fitting import AnyProbe, Judged, fit_probe, judge
from echojepa.probes.linear import LinearConfig
from echojepa.probes.store import Features
from echojepa.probes.tasks import Slot, Task, usable

NUMBER = Task(name="ef", label="lvef", kind="regression", unit="%")
CLASS = Task(name="view", label="kind", kind="classification")
SLOTS = Task(
    name="rvsp",
    label="lvef",
    kind="regression",
    slots=(Slot(view="A4C"), Slot(view="PLAX"), Slot(view="never")),
)
WIDTH = 6
Vectors = NDArray[np.float32]


def toy(
    numbers: tuple[int, int, int] = (60, 20, 30), seed: int = 0, prefix: str = "", classes: int = 2
) -> tuple[pa.Table, Vectors]:
    """Rows of so many studies per split, one to three clips each, and features [n, 2, P] of them.

    The first feature knows `lvef`, the others `kind`; patients have a study each.
    """
    rng = np.random.default_rng(seed)
    lines: list[dict[str, Any]] = []
    vectors: list[NDArray[np.float64]] = []
    for number, split in enumerate(np.repeat(["train", "val", "test"], numbers)):
        value, kind = rng.normal(55, 10), number % classes
        for clip in range(1 + number % 3):
            lines.append(
                {
                    "clip_id": f"{prefix}clip{number:03d}.{clip}",
                    "patient_id": f"{prefix}patient{number:03d}",
                    "study_id": f"{prefix}study{number:03d}",
                    "split": str(split),
                    "view": ("A4C", "PLAX", "A2C")[(number + clip) % 3],
                    "doppler": "none",
                    "lvef": value,
                    "kind": f"kind {kind}",
                }
            )
            known = np.array([(value - 55) / 10, *np.eye(WIDTH - 1)[kind]])
            vectors.append(known + 0.8 * rng.normal(size=(2, WIDTH)))
    return pa.Table.from_pylist(lines), np.array(vectors, np.float32)


def features_of(rows: pa.Table, vectors: Vectors) -> Features:
    """All readable."""
    return Features(rows["clip_id"].to_pylist(), [None] * len(rows), vectors)


def of_split(rows: pa.Table, vectors: Vectors, *splits: str) -> tuple[pa.Table, Vectors]:
    """Those of some splits."""
    part = np.isin(rows["split"].to_pylist(), splits)
    return rows.filter(pa.array(part)), vectors[part]


def fitted(
    rows: pa.Table,
    vectors: Vectors,
    task: Task,
    config: AnyProbe | None = None,
    encoder: str = "encoder",
) -> tuple[Judged, Material]:
    """A probe and what it was fitted on; a slot may be absent."""
    features, config = features_of(rows, vectors), config or LinearConfig()
    looked_at = rows.filter(usable(task, rows.schema).expression)
    examples = examples_of(looked_at, task, features.readable())
    material = Material(examples, features)
    probe = fit_probe(config, material, examples.labels)
    result = judge(encoder, probe, material, examples.labels)
    return Judged(encoder, encoder, probe, config, examples.labels, result), material
