"""A real search: four trials, two at a time, real Ray Train runs, one stopped early at least."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import yaml
from ray.util.state import list_actors
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from echojepa.config import validate
from echojepa.errors import ConfigError, ManifestError
from echojepa.launch.sweep import SweepJob, launch
from echojepa.on_ray.connect import TRAIN_RESOURCE
from echojepa.runs.folder import RunFolder, read_lines

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture
def sweep_tree(tiny_tree: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    tiny_tree["loop"] |= {"num_steps": 12, "probe_every_steps": 3, "log_every_steps": 3}
    tiny_tree["probe"] = {
        "task": {"name": "lvef", "label": "lvef", "kind": "regression"},
        "num_train": 8,
        "num_val": 4,
    }
    tiny_tree["cluster"] = {"num_workers": 1, "resources_per_worker": {TRAIN_RESOURCE: 2.0}}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(tiny_tree))
    return {
        "out": str(tmp_path / "sweep"),
        "base": str(tmp_path / "base.yaml"),
        "search": [
            {
                "key": "objective.masks.generators.0.context_fraction",
                "kind": "uniform",
                "low": 0.2,
                "high": 0.6,
            },
            # Volumes are off by tens of millilitres, fractions by some points: two kinds of trials.
            {"key": "probe.task.label", "kind": "choice", "values": ["edv_ml", "lvef"]},
        ],
        "metric": "probe/lvef_mae",
        "mode": "min",
        "num_trials": 4,
        "max_concurrent": 2,
        "grace_steps": 3,
        "reduction_factor": 2.0,
    }


class WorkerWatch:
    """When every training worker of the cluster was first and last seen alive."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.most_at_once = 0
        self.first_seen: dict[str, float] = {}
        self.last_seen: dict[str, float] = {}

    def __enter__(self) -> WorkerWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        deadline = time.time() + 40
        while living_workers() and time.time() < deadline:
            time.sleep(0.5)
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            alive = living_workers()
            self.most_at_once = max(self.most_at_once, len(alive))
            for actor in alive:
                self.first_seen.setdefault(actor, time.time())
                self.last_seen[actor] = time.time()
            time.sleep(0.5)


def living_workers() -> list[str]:
    found = list_actors(filters=[("class_name", "=", "RayTrainWorker"), ("state", "=", "ALIVE")])
    return [actor.actor_id for actor in found]


def test_a_search_ends_and_frees_its_workers(sweep_tree: dict[str, Any]) -> None:
    """Two trials fill the cluster: the third can only start where a stopped one was."""
    out = Path(sweep_tree["out"])
    with WorkerWatch() as watch:
        best = launch(validate(sweep_tree, SweepJob, "test"))
    assert best["trials"] == 4
    assert not best["failed"]
    runs = sorted(out.glob("tune/*/run"), key=begun)
    results = [read_lines(run.parent / "result.json") for run in runs]
    steps = [lines[-1]["step"] for lines in results]
    assert len(runs) == 4
    assert max(steps) == 12
    assert min(steps) < 12 or came_in_good_order(results), "ASHA stopped no trial"
    assert best["probe/lvef_mae"] == pytest.approx(best_score(runs))
    fractions = {
        RunFolder(r).config_tree()["objective"]["masks"]["generators"][0]["context_fraction"]
        for r in runs
    }
    assert len(fractions) == 4, "trials differ in what is searched"
    assert any(has_hparams(trial) for trial in out.glob("tune/*/"))
    assert watch.most_at_once == 2
    workers = sorted(watch.first_seen, key=watch.first_seen.__getitem__)
    for trial, worker in zip(runs, workers, strict=True):
        ended = (trial.parent / "result.json").stat().st_mtime
        assert watch.last_seen[worker] - ended < 30, "a stopped trial keeps its worker"


def begun(run: Path) -> float:
    return float(RunFolder(run).attempts()[0]["time"])


def came_in_good_order(results: list[list[dict[str, Any]]]) -> bool:
    """Whether nothing was to stop: at every rung, none was worse than half of those before."""
    for rung in (3, 6):
        lines = [line for trial in results for line in trial if line["step"] == rung]
        lines.sort(key=lambda line: line["timestamp"])
        errors = [line["probe/lvef_mae"] for line in lines]
        if any(e > median(errors[:i]) for i, e in enumerate(errors) if i):
            return False
    return True


def best_score(runs: list[Path]) -> float:
    return min(
        line["probe/lvef_mae"]
        for run in runs
        for line in read_lines(run / "metrics.jsonl")
        if "probe/lvef_mae" in line
    )


def has_hparams(trial: Path) -> bool:
    """Whether a trial's TensorBoard file carries HParams."""
    for file in trial.glob("events.out.tfevents.*"):
        events = EventAccumulator(str(file))
        events.Reload()
        if "_hparams_/session_start_info" in events.summary_metadata:
            return True
    return False


def test_a_searched_key_must_exist(sweep_tree: dict[str, Any]) -> None:
    sweep_tree["search"][0]["key"] = "objective.masks.generators.0.context_fractoin"
    with pytest.raises(ConfigError, match="context_fractoin.*Did you mean"):
        launch(validate(sweep_tree, SweepJob, "test"))


def test_a_missing_manifest_is_said_before_any_trial(sweep_tree: dict[str, Any]) -> None:
    sweep_tree["overrides"] = ["data.manifest=nowhere.parquet"]
    with pytest.raises(ManifestError, match="no such"):
        launch(validate(sweep_tree, SweepJob, "test"))


def test_trials_need_a_score(sweep_tree: dict[str, Any]) -> None:
    sweep_tree["overrides"] = ["loop.probe_every_steps=null"]
    with pytest.raises(ConfigError, match="scored by the online probe"):
        launch(validate(sweep_tree, SweepJob, "test"))
