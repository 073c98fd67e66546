"""A whole benchmark: killed in its second arm, resumed with a broken third, then repaired."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from support.tiny import tiny_config

from echojepa.config import load
from echojepa.errors import IncompleteError
from echojepa.launch.benchmark import launch, plan
from echojepa.launch.benchmark_arms import BenchmarkJob
from echojepa.on_ray.connect import TRAIN_RESOURCE
from echojepa.runs.folder import RunFolder, read_lines

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]
BROKEN = 'arms.broken={kind: pretrained, settings: ["data.where.views=[NO SUCH VIEW]"]}'


@pytest.fixture(scope="module")
def file(phantom_manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark of two arms and random weights, with all it refers to."""
    folder = tmp_path_factory.mktemp("benchmark")
    shared = tiny_config(phantom_manifest, folder / "unused")
    del shared["run_dir"], shared["seed"], shared["data"]["manifest"]
    masks = {"generators": [{"num_blocks": 1, "spatial_scale": 0.3}]}
    shared["data"]["where"] = {"split": "train"}
    shared["loop"] |= {"num_steps": 6, "checkpoint_every_steps": 3, "probe_every_steps": 3}
    task = {"name": "lvef", "label": "lvef", "kind": "regression"}
    shared["probe"] = {"task": task, "num_train": 8, "num_val": 4}
    shared["cluster"] = {"num_workers": 1, "resources_per_worker": {TRAIN_RESOURCE: 1.0}}
    judge = {
        "encoders": {"pretrained": {"kind": "ours"}},
        "tasks": [task, {"name": "view", "label": "view", "kind": "classification"}],
        "label_shares": [0.5, 1.0],
        "robustness": {"presets": ["gaussian_shadow"]},
        "page": {"maps": False, "predictions": 0, "attention": 0},
    }
    tree = {
        "out": str(folder / "out"),
        "manifest": str(phantom_manifest),
        "pretrain": str(folder / "pretrain.yaml"),
        "evaluate": str(folder / "evaluate.yaml"),
        "arms": {
            "two masks": {"kind": "pretrained"},
            "one mask": {"kind": "pretrained", "objective": {"kind": "jepa", "masks": masks}},
            "random": {"kind": "untrained"},
        },
        "seeds": [0],
        "reference": "two masks",
    }
    for name, content in (("pretrain", shared), ("evaluate", judge), ("benchmark", tree)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder / "benchmark.yaml"


def killed(file: Path, when: Path) -> None:
    """Start the command, and kill it as soon as a file is there."""
    command = [sys.executable, "-m", "echojepa.cli", "benchmark", str(file)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as started:
        deadline = time.monotonic() + 150
        while not when.is_file():
            assert started.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline, f"{when} did not come"
            time.sleep(0.1)
        started.kill()


def ledger(out: Path) -> list[dict[str, Any]]:
    return read_lines(out / "evaluation" / "ledger.jsonl")


def test_a_benchmark_goes_on_and_one_broken_arm_costs_the_others_nothing(file: Path) -> None:
    job = load(file, [], BenchmarkJob)
    out = Path(job.out)
    told = plan(job)
    assert not out.exists(), "a plan writes something"
    first, second = told.arms
    assert first.num_steps == 6 and first.total("flops") == pytest.approx(
        second.total("flops"), rel=0.1
    )
    assert second.num_steps > first.num_steps, "one mask costs less than two"

    killed(file, out / "runs" / "one mask-0" / "attempts.jsonl")
    assert RunFolder(out / "runs" / "two masks-0").encoder.is_dir()
    assert not (out / "benchmark.json").exists()

    with pytest.raises(IncompleteError, match="broken, seed 0"):
        launch(load(file, [BROKEN], BenchmarkJob))
    attempts = {run.name: len(RunFolder(run).attempts()) for run in out.glob("runs/*mask*")}
    assert attempts == {"two masks-0": 1, "one mask-0": 2}, "a finished run is not repeated"
    known = json.loads((out / "benchmark.json").read_text())
    assert list(known["failed"]) == ["broken, seed 0"]
    assert known["order"]["0"] == {"num_samples": 48, "differing": {}}
    assert known["num_test_reads"] == len(ledger(out)) == 1
    assert "No result of broken, seed 0" in (out / "benchmark.md").read_text()
    page = (out / "benchmark.html").read_text()
    for title in ("Frozen encoders", "Few labels", "Corrupted clips", "Online probe", "Costs"):
        assert f"<h2>{title}</h2>" in page
    lines = pq.read_table(out / "benchmark.parquet").to_pylist()
    assert {line["arm"] for line in lines} >= {"two masks", "one mask", "random"}
    assert "broken" not in {line["arm"] for line in lines}

    assert launch(job) == out
    assert json.loads((out / "benchmark.json").read_text())["failed"] == {}
    assert len(ledger(out)) == 2
    assert launch(job) == out
    assert len(ledger(out)) == 2, "a finished benchmark is not judged again"
    assert plan(job).flops_per_second, "finished runs tell how fast this machine is"
