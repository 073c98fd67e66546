"""Evaluation, end to end on phantoms: from an encoder folder to tables, predictions and a page."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from support.bench import EF, PRETRAINED, RANDOM, VIEW, Bench, changed_manifest

from echojepa.config import validate
from echojepa.data.manifest.file import (
    manifest_fingerprint,
    read_manifest,
    with_absolute_uris,
    write_manifest,
)
from echojepa.encoders.ours import OurSource
from echojepa.errors import CheckpointError, IncompleteError, ManifestError, StorageError
from echojepa.evaluate import evaluate, rows_to_encode
from echojepa.pretrain import PretrainConfig
from echojepa.probes.fitting import ProbeResult
from echojepa.probes.tasks import Task, pick
from echojepa.runs.folder import RunFolder


def test_everything_is_written(bench: Bench, evaluated: tuple[Path, list[ProbeResult]]) -> None:
    out, results = evaluated
    assert [(r.task.name, r.features) for r in results] == [
        (task, features)
        for task in ("ef", "view")
        for features in (PRETRAINED, RANDOM, "predict mean")
    ]
    written = json.loads((out / "results.json").read_text())
    assert set(written["encoders"]) == {PRETRAINED, RANDOM}
    assert written["manifest_fingerprint"] == manifest_fingerprint(bench.manifest)
    assert (written["num_clips"], written["num_unreadable"]) == (24, 0)
    for line, result in zip(written["results"], results, strict=True):
        assert (line["task"], line["features"]) == (result.task.name, result.features)
        assert line["test"] == pytest.approx(result.test)
        assert line["val"] == pytest.approx(result.val)
        studies = result.task.name == "ef"
        assert line["level"] == ("study" if studies else "clip")
        assert (line["num_test"], line["num_test_patients"]) == (3 if studies else 6, 3)
    page = (out / "report.html").read_text()
    assert "predict mean" in page and str(out) not in page


def test_predictions_are_keyed_by_clip_or_study(
    bench: Bench, evaluated: tuple[Path, list[ProbeResult]]
) -> None:
    out, results = evaluated
    lines = pq.read_table(out / "predictions.parquet").to_pylist()
    rows = read_manifest(bench.manifest).to_pylist()
    manifest = {row[name]: row for row in rows for name in ("clip_id", "study_id")}
    keys = Counter((line["task"], line["features"], line["id"]) for line in lines)
    assert set(keys.values()) == {1}
    assert len(keys) == 3 * (3 + 6)  # three studies of two clips each
    for line in lines:
        row = manifest[line["id"]]
        assert line["id"] == row["study_id" if line["level"] == "study" else "clip_id"]
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


def test_the_order_of_the_manifest_is_irrelevant(
    bench: Bench, evaluated: tuple[Path, list[ProbeResult]], tmp_path: Path
) -> None:
    """Features belong to clips by their ids: shuffled rows give the very same scores."""
    table = with_absolute_uris(read_manifest(bench.manifest), bench.manifest.parent)
    order = np.random.default_rng(0).permutation(len(table))
    shuffled = write_manifest(table.take(order), tmp_path / "manifest.parquet")
    config = bench.config(tmp_path / "out", tasks=(EF,), manifest=str(shuffled))
    found = evaluate(config, bench.here)
    assert [r.test for r in found] == [r.test for r in evaluated[1] if r.task is EF]


def test_one_task_of_some_views_encodes_only_those(bench: Bench, tmp_path: Path) -> None:
    task = EF.model_copy(update={"views": ("A4C",)})
    config = bench.config(tmp_path, tasks=(task,))
    rows = rows_to_encode(config)
    assert set(rows["view"].to_pylist()) == {"A4C"}
    assert len(rows) == 12
    assert all(Path(uri).is_absolute() for uri in rows["uri"].to_pylist())
    assert {len(r.predictions.ids) for r in evaluate(config, bench.here)} == {3}


def test_unreadable_clips_are_left_out_and_counted(bench: Bench, tmp_path: Path) -> None:
    splits = dict(zip(*read_manifest(bench.manifest).select(["clip_id", "split"]), strict=True))
    by_split = {
        split: next(str(c) for c, s in splits.items() if str(s) == split)
        for split in ("train", "val", "test")
    }
    by_clip = EF.model_copy(update={"level": "clip"})
    config = bench.config(tmp_path, tasks=(by_clip,))
    results = evaluate(config, bench.here.without(set(by_split.values())))
    assert {len(result.predictions.ids) for result in results} == {5}
    assert all(np.isfinite(list(result.test.values())).all() for result in results)
    written = json.loads((tmp_path / "results.json").read_text())
    assert (written["num_clips"], written["num_unreadable"]) == (24, 3)
    lines = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    assert by_split["test"] not in {line["id"] for line in lines}
    assert "3 clip(s) could not be read (missing)." in (tmp_path / "report.html").read_text()


def test_few_labels(bench: Bench, tmp_path: Path) -> None:
    """Every share of every task and encoder, in the file and on the page."""
    evaluate(bench.config(tmp_path, label_shares=(0.5, 1.0)), bench.here)
    found = json.loads((tmp_path / "results.json").read_text())
    keys = [(p["task"], p["features"], p["share"]) for p in found["label_efficiency"]]
    assert keys == [
        (task, features, share)
        for task in ("ef", "view")
        for features in (PRETRAINED, RANDOM)
        for share in (0.5, 1.0)
    ]
    whole = {(r["task"], r["features"]): r["test"] for r in found["results"]}
    for point in found["label_efficiency"]:
        if point["share"] == 1.0:
            assert point["test"] == pytest.approx(whole[point["task"], point["features"]])
    assert "alt='few labels'" in (tmp_path / "report.html").read_text()
    with pytest.raises(ValidationError, match="are not above 0 and up to 1"):
        bench.config(tmp_path, label_shares=(0.0,))


def test_results_are_told_by_group(bench: Bench, tmp_path: Path) -> None:
    """Of every vendor alone, and of nothing that the manifest lacks."""
    evaluate(bench.config(tmp_path, groups=("vendor", "no_such_column")), bench.here)
    rows = [r for r in read_manifest(bench.manifest).to_pylist() if r["split"] == "test"]
    for line in json.loads((tmp_path / "results.json").read_text())["results"]:
        studies = line["level"] == "study"
        units = {row["study_id" if studies else "clip_id"]: row["vendor"] for row in rows}
        counts = Counter(units.values())
        assert {g["value"]: g["num_test"] for g in line["groups"]} == counts
        assert {g["column"] for g in line["groups"]} == {"vendor"}
        if line["task"] == "view":
            shares = [g["test"]["accuracy"] * g["num_test"] for g in line["groups"]]
            assert sum(shares) / len(units) == pytest.approx(line["test"]["accuracy"])


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_split_of_unreadable_clips_is_an_error(bench: Bench, tmp_path: Path, split: str) -> None:
    rows = read_manifest(bench.manifest).to_pylist()
    bad = {row["clip_id"] for row in rows if row["split"] == split}
    with pytest.raises(ManifestError, match=f"no readable labelled clip in split '{split}'"):
        evaluate(bench.config(tmp_path), bench.here.without(bad))
    assert not (tmp_path / "results.json").exists()


def test_a_test_split_without_labels_is_an_error_that_costs_other_tasks_nothing(
    bench: Bench, tmp_path: Path
) -> None:
    rows = read_manifest(bench.manifest).to_pylist()
    labels = [None if row["split"] == "test" else row["lvef"] for row in rows]
    manifest = changed_manifest(bench, tmp_path, "lvef", labels)
    config = bench.config(tmp_path / "out", manifest=manifest)
    with pytest.raises(IncompleteError, match="task 'ef' has no readable labelled clip .* 'test'"):
        evaluate(config, bench.here)
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {line["task"] for line in written["results"]} == {"view"}
    assert list(written["failed"]) == ["task ef"]


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
        evaluate(config, bench.here)


def test_what_is_no_encoder_is_refused_before_anything_is_encoded(
    bench: Bench, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="no valid checkpoint"):
        evaluate(
            bench.config(tmp_path, encoders={"none": OurSource(path=str(tmp_path))}), bench.here
        )


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
        evaluate(bench.config(tmp_path / "out", tasks=(EF,)), bench.here)
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
    evaluate(bench.config(tmp_path / "out", run_dir=run_dir, tasks=(EF,)), bench.here)
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
    evaluate(config, bench.here.without({clip_ids[shown]}))
    assert (tmp_path / "out" / "report.html").read_text().count("alt='clip and masks'") == 4
