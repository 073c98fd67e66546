"""Predictions of a fitted probe on new videos, as Parquet.

OUT/
  predictions.parquet    of every clip and every study: what the probe says, its interval, which
                         views it saw, and why a clip says nothing
  features/              an interrupted call goes on from here
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from echojepa.config import Strict
from echojepa.data.decode.frames import ReadConfig
from echojepa.data.manifest.file import check_manifest, ready_to_read, scan_manifest
from echojepa.data.manifest.schema import STREAM_COLUMNS
from echojepa.errors import ManifestError, StorageError
from echojepa.probes.examples import ABSENT, Arranged, Material, arranged
from echojepa.probes.extraction import Executor, extract
from echojepa.probes.metrics import Floats
from echojepa.probes.probe_file import SavedProbe
from echojepa.probes.store import Features
from echojepa.probes.tasks import chosen

_IDS = ("patient_id", "study_id", "view", "doppler")


class PredictConfig(Strict):
    """By what to predict, and of whom."""

    command = "predict"

    probe: str
    """Folder of a fitted probe, below `probes` of an evaluation."""
    manifest: str
    """Path of `manifest.parquet`; it needs no labels."""
    out: str
    """Folder for predictions."""
    read: ReadConfig = ReadConfig()
    """How the files of clips are read."""


def predict(config: PredictConfig, executor: Executor) -> pa.Table:
    """Write predictions of every clip that the probe's task looks at, and of their studies.

    Raises:
        CheckpointError: the probe or its encoder cannot be loaded.
        ManifestError: the manifest is bad, or has no clip of the kind that the probe reads.
        StorageError: features or predictions cannot be written.
    """
    saved = SavedProbe.load(Path(config.probe))
    check_manifest(config.manifest)
    task, base = saved.card.task, Path(config.manifest).resolve().parent
    batches = scan_manifest(config.manifest, (*STREAM_COLUMNS, *_IDS), chosen(task))
    rows = pa.Table.from_batches([ready_to_read(batch, base) for batch in batches])
    if not len(rows):
        raise ManifestError(
            f"there is no clip of the kind that task {task.name!r} looks at",
            "Check the columns view and doppler.",
            config.manifest,
        )
    how = saved.card.extract.model_copy(update={"read": config.read})
    found = extract(rows, {"": saved.card.encoder}, how, Path(config.out) / "features", executor)
    for error in found.failed.values():
        raise error
    table = pa.Table.from_pylist(list(_lines(saved, rows, found.stores[""].read())))
    try:
        pq.write_table(table, Path(config.out) / "predictions.parquet")
    except OSError as error:
        raise StorageError(
            f"predictions cannot be written: {error.strerror}", "Choose another `out`.", config.out
        ) from None
    return table


def _lines(saved: SavedProbe, rows: pa.Table, features: Features) -> Iterator[dict[str, Any]]:
    """Of every clip, unless the probe needs several at once; then of every study."""
    task = saved.card.task
    examples = arranged(rows, task, features.readable())
    output = saved.probe.predict(Material(examples, features), np.arange(len(examples.clips)))
    owners = rows.take(pa.array(examples.first)).to_pylist()
    if not task.slots:
        problems = dict(zip(features.clip_ids, features.problems, strict=True))
        said = dict(zip(examples.clips[:, 0].tolist(), output, strict=True))
        for row in rows.to_pylist():
            line = _line("clip", row["clip_id"], row, saved, said.get(row["clip_id"]))
            problem = problems[row["clip_id"]]
            yield {**line, "views": [row["view"]], "problem": problem and str(problem)}
    for study, places in _studies(owners).items():
        views = _views(examples, rows, places)
        line = _line("study", study, owners[places[0]], saved, output[places].mean(axis=0))
        yield {**line, "views": views, "problem": None}


def _studies(owners: list[dict[str, Any]]) -> dict[str, list[int]]:
    """Examples of every study, by their place."""
    found: dict[str, list[int]] = {}
    for place, owner in enumerate(owners):
        found.setdefault(owner["study_id"], []).append(place)
    return found


def _views(examples: Arranged, rows: pa.Table, places: list[int]) -> list[str]:
    """What the probe saw of a study: the slots that are present, or the views of its clips."""
    if examples.slots == (ABSENT,):
        views = rows["view"].take(pa.array(examples.first[places])).to_pylist()
        return sorted({str(view) for view in views})
    present = (examples.clips[places] != ABSENT).any(axis=0)
    return [slot for slot, there in zip(examples.slots, present, strict=True) if there]


def _line(
    level: str, unit: str, row: dict[str, Any], saved: SavedProbe, output: Floats | float | None
) -> dict[str, Any]:
    """One prediction; an interval is said of what was judged, clips or studies."""
    card = saved.card
    line = {
        "level": level,
        "id": unit,
        "study_id": row["study_id"],
        "patient_id": row["patient_id"],
    }
    if card.classes:
        known = np.full(len(card.classes), np.nan) if output is None else np.asarray(output)
        best = None if output is None else card.classes[int(known.argmax())]
        shares = zip(card.classes, known, strict=True)
        return {**line, "predicted": best} | {f"prob_{c}": float(p) for c, p in shares}
    judged = card.task.by_study == (level == "study")
    half = card.half_width if judged and output is not None else None
    value = None if output is None else float(output)
    bounds = (None, None) if half is None or value is None else (value - half, value + half)
    return {**line, "predicted": value, "low": bounds[0], "high": bounds[1]}
