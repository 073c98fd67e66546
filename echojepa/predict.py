"""Predictions of a fitted probe on new videos, as Parquet.

OUT/
  predictions.parquet    of every clip and every study: what the probe says, its interval, which
                         views it saw, and why it says nothing (a probe that looks at several clips
                         of a study at once says nothing of single ones: only those have a line that
                         could not be read)
  features/              an interrupted call goes on from here
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from echojepa.config import Strict
from echojepa.data.decode.frames import ReadConfig
from echojepa.data.manifest.file import check_manifest, read_ready
from echojepa.data.manifest.schema import STREAM_COLUMNS
from echojepa.errors import ManifestError, StorageError
from echojepa.probes.examples import ABSENT, Arranged, Material, arranged
from echojepa.probes.extraction import Executor, extract
from echojepa.probes.metrics import Floats
from echojepa.probes.probe_file import ProbeCard, SavedProbe
from echojepa.probes.store import Features
from echojepa.probes.tasks import chosen, require_one_patient_per_study

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
        ManifestError: the manifest is bad, has no clip of the kind that the probe reads, or mixes
            up patients.
        StorageError: features or predictions cannot be written.
    """
    saved = SavedProbe.load(Path(config.probe))
    check_manifest(config.manifest)
    task = saved.card.task
    rows = read_ready(config.manifest, (*STREAM_COLUMNS, *_IDS), chosen(task))
    if not len(rows):
        raise ManifestError(
            f"there is no clip of the kind that task {task.name!r} looks at",
            "Check the columns view and doppler.",
            config.manifest,
        )
    require_one_patient_per_study(rows)
    how = saved.card.extract.model_copy(update={"read": config.read})
    found = extract(rows, {"": saved.card.encoder}, how, Path(config.out) / "features", executor)
    lines = list(_lines(saved, rows, found.only().read()))
    table = pa.Table.from_pylist(lines, _schema(saved.card))
    try:
        pq.write_table(table, Path(config.out) / "predictions.parquet")
    except OSError as error:
        raise StorageError(
            f"predictions cannot be written: {error.strerror}", "Choose another `out`.", config.out
        ) from None
    return table


def _schema(card: ProbeCard) -> pa.Schema:
    """The same for any videos, whatever is null."""
    texts = ("level", "id", "study_id", "patient_id")
    numbers = tuple(f"prob_{c}" for c in card.classes) or ("low", "high")
    return pa.schema(
        [
            *(pa.field(name, pa.string()) for name in texts),
            pa.field("predicted", pa.string() if card.classes else pa.float64()),
            *(pa.field(name, pa.float64()) for name in numbers),
            pa.field("views", pa.list_(pa.string())),
            pa.field("problem", pa.string()),
        ]
    )


def _lines(saved: SavedProbe, rows: pa.Table, features: Features) -> Iterator[dict[str, Any]]:
    """Of every clip, unless the probe needs several at once; then of every study."""
    task = saved.card.task
    examples = arranged(rows, task, features.readable())
    output = saved.probe.predict(Material(examples, features), np.arange(len(examples.clips)))
    pairs = zip(features.clip_ids, features.problems, strict=True)
    problems = {clip_id: str(problem) for clip_id, problem in pairs if problem is not None}
    said = {} if task.slots else dict(zip(examples.clips[:, 0].tolist(), output, strict=True))
    clips = rows.to_pylist()
    for row in clips:
        problem = problems.get(row["clip_id"])
        if problem is not None or not task.slots:
            line = _line("clip", row["clip_id"], row, saved.card, said.get(row["clip_id"]))
            yield {**line, "views": _named([row["view"]]), "problem": problem}
    places: dict[str, list[int]] = {}
    for place, first in enumerate(examples.first.tolist()):
        places.setdefault(clips[first]["study_id"], []).append(place)
    for study, of_study in _studies(clips).items():
        here = places.get(study, [])
        mean = output[here].mean(axis=0) if here else None
        line = _line("study", study, of_study[0], saved.card, mean)
        problem = None if here else problems[of_study[0]["clip_id"]]
        yield {**line, "views": _views(examples, clips, here), "problem": problem}


def _studies(clips: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows of every study, in their order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in clips:
        found.setdefault(row["study_id"], []).append(row)
    return found


def _views(examples: Arranged, clips: list[dict[str, Any]], places: list[int]) -> list[str]:
    """What the probe saw of a study: the slots that are present, or the views of its clips."""
    if examples.slots == (ABSENT,):
        return _named(clips[first]["view"] for first in examples.first[places].tolist())
    present = (examples.clips[places] != ABSENT).any(axis=0)
    return [slot for slot, there in zip(examples.slots, present, strict=True) if there]


def _named(views: Iterable[str | None]) -> list[str]:
    """Each view once, in order; a clip may have none."""
    return sorted({view for view in views if view is not None})


def _line(
    level: str, unit: str, row: dict[str, Any], card: ProbeCard, output: Floats | None
) -> dict[str, Any]:
    """One prediction; an interval is said of what was judged, clips or studies."""
    line = {
        "level": level,
        "id": unit,
        "study_id": row["study_id"],
        "patient_id": row["patient_id"],
    }
    if output is None:
        return line
    if card.classes:
        shares = {f"prob_{c}": float(p) for c, p in zip(card.classes, output, strict=True)}
        return {**line, "predicted": card.classes[int(output.argmax())], **shares}
    value, half = float(output), card.half_width
    if half is None or card.task.by_study != (level == "study"):
        return {**line, "predicted": value}
    return {**line, "predicted": value, "low": value - half, "high": value + half}
