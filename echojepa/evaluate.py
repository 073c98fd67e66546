"""Evaluation, assembled: frozen features in, fitted probes, tables and a report out.

`evaluate(config, features)` needs no cluster; `launch.evaluate` computes the features on one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field, model_validator

from echojepa.config import Strict, fingerprint, validate
from echojepa.data.decode.frames import ReadConfig
from echojepa.data.manifest.file import manifest_fingerprint
from echojepa.data.problem import Problem
from echojepa.data.sampling import ClipConfig
from echojepa.encoders.frozen import EncoderSource
from echojepa.encoders.ours import OurSource
from echojepa.errors import StorageError
from echojepa.models.weights import read_config
from echojepa.objectives.kinds import AnyObjective
from echojepa.objectives.objective import ModelConfig
from echojepa.pictures.masks import mask_picture
from echojepa.pictures.report import Report, write_report
from echojepa.probes.efficiency import CurvePoint, label_curve
from echojepa.probes.features import FeatureConfig, FeatureExtractor, load_view
from echojepa.probes.leaks import Overlap, Pretraining, note_reading, pretraining_of
from echojepa.probes.linear import ProbeResult, fit_baseline, fit_probe
from echojepa.probes.results import described, differences_to, lines_of
from echojepa.probes.tasks import (
    Task,
    labelled_rows,
    labels_of,
    pick,
    read_labelled,
    require_labels,
)
from echojepa.randomness import Seeds
from echojepa.runs.folder import RunFolder, read_lines

PRETRAINED, RANDOM = "pretrained", "random weights"
_NUM_PICTURES = 4


class EvaluateConfig(Strict):
    """What to evaluate, and on what."""

    command = "evaluate"

    encoder: str
    """Encoder folder, as a run exports it."""
    manifest: str
    """Path of `manifest.parquet`, with the labels of the tasks."""
    out: str
    """Folder for results.json, predictions.parquet and report.html."""
    tasks: tuple[Task, ...]
    """What to predict from the features, each task under a name of its own."""
    run_dir: str | None = None
    """The run the encoder comes from: its curves and masks go into the report."""
    features: FeatureConfig = FeatureConfig()
    """How a video becomes one vector of features."""
    label_shares: tuple[float, ...] = ()
    """Also fit the probes on so small parts of the training patients, each drawn three times."""
    overlap: Overlap = "stop"
    """What follows if the encoder was pretrained on clips of test patients: no evaluation, or one
    that says so in its results and on its page."""
    groups: tuple[str, ...] = ("vendor", "population", "sex", "age_band")
    """Text columns by whose values every result is told once more; those that there are."""
    read: ReadConfig = ReadConfig()
    """How the files of clips are read."""
    batch: int = Field(8, gt=0)
    """Clips per forward pass."""
    random_seed: int = Field(0, ge=0)
    """Of the randomly initialised encoder every result stands beside."""

    @model_validator(mode="after")
    def _named_tasks(self) -> EvaluateConfig:
        names = [task.name for task in self.tasks]
        if not names or len(set(names)) < len(names):
            raise ValueError("at least one task is needed, each with a name of its own")
        if not all(0 < share <= 1 for share in self.label_shares):
            raise ValueError(f"label_shares {self.label_shares} are not above 0 and up to 1")
        return self


@dataclass(frozen=True)
class Features:
    """Features of clips, keyed by clip id."""

    clip_ids: list[str]
    problems: list[Problem | None]
    """Why a clip could not be read; None for the others."""
    by_encoder: dict[str, NDArray[np.float64]]
    """[n, D] each."""

    def readable(self) -> set[str]:
        """Ids of the clips that could be read."""
        return {c for c, p in zip(self.clip_ids, self.problems, strict=True) if p is None}

    def rows_for(self, clip_ids: list[str]) -> NDArray[np.int64]:
        """Row of every clip id."""
        row_of = {clip_id: i for i, clip_id in enumerate(self.clip_ids)}
        return np.array([row_of[clip_id] for clip_id in clip_ids], np.int64)


def rows_to_encode(config: EvaluateConfig) -> pa.Table:
    """Every manifest row that some task uses, with absolute URIs.

    Raises:
        ManifestError: a task's label is missing or has no clip in a split; or the encoder was
            pretrained on test patients.
    """
    table = read_labelled(config.manifest, config.tasks, config.groups)
    for task in config.tasks:
        labelled_rows(table, task)
    pretraining_of(Path(config.encoder), table, config.overlap)
    return table


class Provenance(NamedTuple):
    """What a reader must know of the test split."""

    pretraining: Pretraining
    num_reads: int
    """How often results were written into the folder."""


def _only(table: pa.Table, clip_ids: Iterable[str]) -> pa.Table:
    return table.filter(pc.is_in(table["clip_id"], pa.array(list(clip_ids), pa.string())))


def extractor(config: EvaluateConfig) -> Callable[[], FeatureExtractor]:
    """A picklable recipe of the feature extractor.

    Raises:
        CheckpointError: `config.encoder` is no encoder folder.
    """
    evaluation_clip(config)
    path = str(Path(config.encoder).resolve())
    sources: dict[str, EncoderSource] = {
        PRETRAINED: OurSource(path=path),
        RANDOM: OurSource(path=path, random_seed=config.random_seed),
    }
    return lambda: FeatureExtractor(sources, config.features, config.read)


def evaluation_clip(config: EvaluateConfig) -> ClipConfig:
    """Frames, rate and size the encoder was trained with."""
    _, clip = read_config(Path(config.encoder))
    return validate(clip, ClipConfig, f"{config.encoder}/config.json")


def evaluate(config: EvaluateConfig, features: Features) -> list[ProbeResult]:
    """Fit all probes, write results, predictions and the report; returns the results.

    Raises:
        ManifestError: too few readable labelled clips.
        StorageError: `out` cannot be written.
    """
    table = rows_to_encode(config)
    results: list[ProbeResult] = []
    curve: list[CurvePoint] = []
    for task in config.tasks:
        found, points = _judge(config, table, task, features)
        results += found
        curve += points
    out = Path(config.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        reading = Provenance(
            pretraining_of(Path(config.encoder), table, config.overlap),
            note_reading(out, fingerprint(config)),
        )
        _write_results(config, out, results, curve, features, reading)
        predictions = [line for result in results for line in lines_of(result)]
        pq.write_table(pa.Table.from_pylist(predictions), out / "predictions.parquet")
        report = _report(config, table, results, features, reading)
        report = replace(report, label_curve=curve)
        write_report(report, out / "report.html")
    except OSError as error:
        raise StorageError(
            f"results cannot be written: {error.strerror}", "Choose another `out`.", str(out)
        ) from None
    return results


def _judge(
    config: EvaluateConfig, table: pa.Table, task: Task, features: Features
) -> tuple[list[ProbeResult], list[CurvePoint]]:
    """All probes of one task, and what few labels make of them."""
    rows = _only(labelled_rows(table, task), features.readable())
    require_labels(rows, task, ("train", "val", "test"))
    labels = labels_of(rows, task, config.groups)
    where = features.rows_for(labels.clip_ids)
    results = [
        fit_probe(task, labels, name, values[where]) for name, values in features.by_encoder.items()
    ]
    results.append(fit_baseline(task, labels))
    shares = config.label_shares
    points = [
        point
        for name, values in features.by_encoder.items()
        for point in label_curve(labels, name, values[where], shares)
    ]
    return results, points


def _write_results(
    config: EvaluateConfig,
    out: Path,
    results: list[ProbeResult],
    curve: list[CurvePoint],
    features: Features,
    reading: Provenance,
) -> None:
    content = {
        "encoder": Path(config.encoder).name,
        "manifest_fingerprint": manifest_fingerprint(config.manifest),
        "pretraining_patients": reading.pretraining._asdict(),
        "num_test_reads": reading.num_reads,
        "num_clips": len(features.clip_ids),
        "num_unreadable": sum(p is not None for p in features.problems),
        "results": [described(result) for result in results],
        "differences": differences_to(PRETRAINED, results),
        "label_efficiency": [point._asdict() for point in curve],
    }
    (out / "results.json").write_text(json.dumps(content, indent=1))


def _report(
    config: EvaluateConfig,
    table: pa.Table,
    results: list[ProbeResult],
    features: Features,
    reading: Provenance,
) -> Report:
    curves: list[dict[str, Any]] = []
    facts = {
        "clips encoded": str(len(features.clip_ids)),
        "test patients seen in pretraining": reading.pretraining.describe(),
        "test split read": f"{reading.num_reads} time(s)",
    }
    pictures: list[NDArray[np.uint8]] = []
    if config.run_dir is not None:
        folder = RunFolder(config.run_dir)
        curves = read_lines(folder.path / "metrics.jsonl")
        identity = folder.identity()
        facts |= {
            "config hash": identity["config_hash"],
            "source commit": str(identity["git_commit"])[:12],
            "manifest SHA-256": identity["manifest_fingerprint"][:16],
        }
        pictures = _pictures(config, folder.config_tree(), _only(table, features.readable()))
    unread = [p for p in features.problems if p is not None]
    return Report(results=results, curves=curves, pictures=pictures, facts=facts, unread=unread)


def _pictures(
    config: EvaluateConfig, run: dict[str, Any], rows: pa.Table
) -> list[NDArray[np.uint8]]:
    """Some of the rows' clips with the masks the run trained with."""
    clip = evaluation_clip(config)
    where = f"{config.run_dir}/config.yaml"
    model = validate(run["model"], ModelConfig, where)
    objective = validate(run["objective"], AnyObjective, where).build(
        model, model.encoder.grid(clip.num_frames, clip.size, clip.size), Seeds(run["seed"])
    )
    picked = pick(rows["clip_id"].to_pylist(), _NUM_PICTURES, seed=1)
    by_id = {row["clip_id"]: row for row in _only(rows, picked).to_pylist()}
    chosen = [by_id[clip_id] for clip_id in picked]
    hiddens = objective.hidden_tokens(np.arange(len(chosen)))
    return [
        mask_picture(load_view(row, clip, config.read), [h[i] for h in hiddens], objective.grid)
        for i, row in enumerate(chosen)
    ]
