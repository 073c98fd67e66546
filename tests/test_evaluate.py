"""Evaluation, end to end on phantoms: from an encoder folder to tables, predictions and a page."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError

from echojepa.config import validate
from echojepa.data.manifest.file import manifest_fingerprint, read_manifest, write_manifest
from echojepa.data.problem import Problem
from echojepa.errors import CheckpointError, ManifestError, StorageError
from echojepa.evaluate import (
    PRETRAINED,
    RANDOM,
    EvaluateConfig,
    Features,
    evaluate,
    extractor,
    rows_to_encode,
)
from echojepa.models.encoder import EncoderConfig, VideoEncoder
from echojepa.models.weights import save_encoder
from echojepa.pretrain import PretrainConfig
from echojepa.probes.linear import ProbeResult
from echojepa.probes.tasks import Task, pick
from echojepa.runs.folder import RunFolder

TINY = EncoderConfig(width=48, depth=2, num_heads=4, patch_size=8)
CLIP = {"num_frames": 4, "fps": 10.0, "size": 48}
EF = Task(name="ef", label="lvef", kind="regression", unit="%")
VIEW = Task(name="view", label="view", kind="classification")


@dataclass(frozen=True)
class Bench:
    """An encoder, a manifest, and the features of its clips."""

    encoder: Path
    manifest: Path
    features: Features

    def config(self, out: Path, **changes: Any) -> EvaluateConfig:
        """An evaluation of both tasks."""
        settings = {"encoder": str(self.encoder), "manifest": str(self.manifest), "out": str(out)}
        return EvaluateConfig(**{**settings, "tasks": (EF, VIEW), **changes})


def features_of(config: EvaluateConfig) -> Features:
    """Features of every clip the evaluation uses, without a cluster."""
    columns = extractor(config)()(rows_to_encode(config).to_pylist())
    return Features(
        clip_ids=columns.pop("clip_id").tolist(),
        problems=[Problem.from_text(p) for p in columns.pop("problem")],
        by_encoder={name: values.astype(np.float64) for name, values in columns.items()},
    )


@pytest.fixture(scope="module")
def bench(phantom_manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A randomly initialised encoder, exported, and its features of the phantom."""
    torch.manual_seed(7)
    folder = tmp_path_factory.mktemp("bench") / "encoder"
    save_encoder(folder, TINY, VideoEncoder(TINY).state_dict(), CLIP, "# Tiny\n")
    nothing = Features([], [], {})
    config = Bench(folder, phantom_manifest, nothing).config(folder.parent)
    return Bench(folder, phantom_manifest, features_of(config))


def changed_manifest(bench: Bench, path: Path, column: str, values: list[Any]) -> str:
    """The phantom's manifest with one column replaced."""
    table = read_manifest(bench.manifest)
    index = table.column_names.index(column)
    array = pa.array(values, table.schema.field(column).type)
    return str(write_manifest(table.set_column(index, column, array), path / "manifest.parquet"))


@pytest.fixture(scope="module")
def evaluated(
    bench: Bench, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[ProbeResult]]:
    """An evaluation of both tasks: its folder and results."""
    out = tmp_path_factory.mktemp("evaluated") / "deep" / "out"
    return out, evaluate(bench.config(out), bench.features)


def test_everything_is_written(bench: Bench, evaluated: tuple[Path, list[ProbeResult]]) -> None:
    out, results = evaluated
    assert [(r.task.name, r.features) for r in results] == [
        (task, features)
        for task in ("ef", "view")
        for features in (PRETRAINED, RANDOM, "predict mean")
    ]
    written = json.loads((out / "results.json").read_text())
    assert written["encoder"] == "encoder"
    assert written["manifest_fingerprint"] == manifest_fingerprint(bench.manifest)
    assert (written["num_clips"], written["num_unreadable"]) == (24, 0)
    for line, result in zip(written["results"], results, strict=True):
        assert (line["task"], line["features"]) == (result.task.name, result.features)
        assert line["test"] == pytest.approx(result.test)
        assert line["val"] == pytest.approx(result.val)
        assert (line["num_test"], line["num_test_patients"]) == (6, 3)
    page = (out / "report.html").read_text()
    assert "predict mean" in page and str(out) not in page


def test_predictions_are_keyed_by_clip(
    bench: Bench, evaluated: tuple[Path, list[ProbeResult]]
) -> None:
    out, results = evaluated
    lines = pq.read_table(out / "predictions.parquet").to_pylist()
    manifest = {row["clip_id"]: row for row in read_manifest(bench.manifest).to_pylist()}
    tested = {clip_id for clip_id, row in manifest.items() if row["split"] == "test"}
    assert len(tested) == 6
    keys = Counter((line["task"], line["features"], line["clip_id"]) for line in lines)
    assert set(keys.values()) == {1}
    assert len(keys) == 2 * 3 * 6
    for line in lines:
        row = manifest[line["clip_id"]]
        assert row["split"] == "test"
        truth = row["view"] if line["task"] == "view" else str(row["lvef"])
        assert line["truth"] == truth
    for result in results:
        key = result.task.name, result.features
        found = [line for line in lines if (line["task"], line["features"]) == key]
        if result.task is EF:
            errors = [abs(float(line["truth"]) - float(line["predicted"])) for line in found]
            assert np.mean(errors) == pytest.approx(result.test["mae"])
        else:
            correct = [line["truth"] == line["predicted"] for line in found]
            assert np.mean(correct) == pytest.approx(result.test["accuracy"])


def test_the_order_of_the_features_is_irrelevant(
    bench: Bench, evaluated: tuple[Path, list[ProbeResult]], tmp_path: Path
) -> None:
    order = np.random.default_rng(0).permutation(24)
    shuffled = Features(
        clip_ids=[bench.features.clip_ids[i] for i in order],
        problems=[None] * 24,
        by_encoder={name: values[order] for name, values in bench.features.by_encoder.items()},
    )
    found = evaluate(bench.config(tmp_path, tasks=(EF,)), shuffled)
    assert [r.test for r in found] == [r.test for r in evaluated[1] if r.task is EF]


def test_one_task_of_some_views_encodes_only_those(bench: Bench, tmp_path: Path) -> None:
    task = EF.model_copy(update={"views": ("A4C",)})
    config = bench.config(tmp_path, tasks=(task,))
    rows = rows_to_encode(config)
    assert set(rows["view"].to_pylist()) == {"A4C"}
    assert len(rows) == 12
    assert all(Path(uri).is_absolute() for uri in rows["uri"].to_pylist())
    assert {len(result.truth) for result in evaluate(config, bench.features)} == {3}


def unreadable(features: Features, clip_ids: set[str]) -> Features:
    """The same features, some clips of which could not be read."""
    bad = np.array([clip_id in clip_ids for clip_id in features.clip_ids])
    values = {n: np.where(bad[:, None], np.nan, v) for n, v in features.by_encoder.items()}
    missing = Problem("open", "missing", "no such file")
    problems = [missing if b else None for b in bad]
    return replace(features, problems=problems, by_encoder=values)


def test_unreadable_clips_are_left_out_and_counted(bench: Bench, tmp_path: Path) -> None:
    splits = dict(zip(*read_manifest(bench.manifest).select(["clip_id", "split"]), strict=True))
    by_split = {
        split: next(str(c) for c, s in splits.items() if str(s) == split)
        for split in ("train", "val", "test")
    }
    config = bench.config(tmp_path, tasks=(EF,))
    results = evaluate(config, unreadable(bench.features, set(by_split.values())))
    assert {len(result.truth) for result in results} == {5}
    assert all(np.isfinite(list(result.test.values())).all() for result in results)
    written = json.loads((tmp_path / "results.json").read_text())
    assert (written["num_clips"], written["num_unreadable"]) == (24, 3)
    lines = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    assert by_split["test"] not in {line["clip_id"] for line in lines}
    assert "3 clip(s) could not be read (missing)." in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_split_of_unreadable_clips_is_an_error(bench: Bench, tmp_path: Path, split: str) -> None:
    rows = read_manifest(bench.manifest).to_pylist()
    bad = {row["clip_id"] for row in rows if row["split"] == split}
    with pytest.raises(ManifestError, match=f"no readable labelled clip in split '{split}'"):
        evaluate(bench.config(tmp_path), unreadable(bench.features, bad))
    assert not (tmp_path / "results.json").exists()


def test_a_test_split_without_labels_is_an_error(bench: Bench, tmp_path: Path) -> None:
    rows = read_manifest(bench.manifest).to_pylist()
    labels = [None if row["split"] == "test" else row["lvef"] for row in rows]
    manifest = changed_manifest(bench, tmp_path, "lvef", labels)
    config = bench.config(tmp_path / "out", manifest=manifest)
    with pytest.raises(ManifestError, match="task 'ef' has no readable labelled clip .* 'test'"):
        evaluate(config, bench.features)


def test_a_missing_label_is_an_error_before_anything_is_encoded(
    bench: Bench, tmp_path: Path
) -> None:
    config = bench.config(tmp_path, tasks=(EF.model_copy(update={"label": "gls"}),))
    with pytest.raises(ManifestError, match="needs the column 'gls'"):
        rows_to_encode(config)


@pytest.mark.parametrize("tasks", [(), (EF, VIEW.model_copy(update={"name": "ef"}))])
def test_tasks_are_at_least_one_and_named_differently(
    bench: Bench, tmp_path: Path, tasks: tuple[Task, ...]
) -> None:
    """Results and predictions are keyed by the name."""
    with pytest.raises(ValidationError, match="task"):
        bench.config(tmp_path, tasks=tasks)


def test_a_single_class_is_an_error(bench: Bench, tmp_path: Path) -> None:
    config = bench.config(tmp_path, tasks=(VIEW.model_copy(update={"views": ("A4C",)}),))
    with pytest.raises(ManifestError, match="class"):
        evaluate(config, bench.features)


def test_what_is_no_encoder_is_refused_before_anything_is_encoded(
    bench: Bench, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="not an encoder folder"):
        extractor(bench.config(tmp_path, encoder=str(tmp_path)))


@pytest.mark.parametrize("blocked", ["out", "out/results.json", "out/predictions.parquet"])
def test_an_output_that_cannot_be_written_is_an_error(
    bench: Bench, tmp_path: Path, blocked: str
) -> None:
    path = tmp_path / blocked
    path.parent.mkdir(exist_ok=True)
    if blocked == "out":
        path.touch()
    else:
        path.mkdir()
    with pytest.raises(StorageError) as caught:
        evaluate(bench.config(tmp_path / "out", tasks=(EF,)), bench.features)
    assert caught.value.where == str(tmp_path / "out")
    assert "None" not in str(caught.value)


@pytest.fixture
def run_dir(bench: Bench, tiny_tree: dict[str, Any]) -> str:
    """A run folder with some logged steps."""
    folder = RunFolder(tiny_tree["run_dir"])
    config = validate(tiny_tree, PretrainConfig, "test")
    folder.create(config, manifest_fingerprint(bench.manifest))
    for step in (2, 4):
        folder.metrics(step, {"loss": 1.0 / step, "lr": 1e-3, "effective_rank": 5.0})
    return str(folder.path)


def test_a_run_gives_its_curves_masks_and_origin(
    bench: Bench, tmp_path: Path, run_dir: str
) -> None:
    evaluate(bench.config(tmp_path / "out", run_dir=run_dir, tasks=(EF,)), bench.features)
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("alt='training curves'") == 1
    assert page.count("alt='clip and masks'") == 4
    assert RunFolder(run_dir).identity()["config_hash"] in page
    assert str(tmp_path) not in page


def test_an_unreadable_clip_does_not_cost_the_report(
    bench: Bench, tmp_path: Path, run_dir: str
) -> None:
    """The clips that are shown are drawn from those that could be read."""
    table = read_manifest(bench.manifest)
    clip_ids = table["clip_id"].to_pylist()
    shown = clip_ids.index(pick(clip_ids, 4, seed=1)[0])
    uris = [str(bench.manifest.parent / uri) for uri in table["uri"].to_pylist()]
    uris[shown] = str(tmp_path / "gone.mp4")
    manifest = changed_manifest(bench, tmp_path / "data", "uri", uris)
    config = bench.config(tmp_path / "out", manifest=manifest, run_dir=run_dir, tasks=(EF,))
    evaluate(config, unreadable(bench.features, {clip_ids[shown]}))
    assert (tmp_path / "out" / "report.html").read_text().count("alt='clip and masks'") == 4
