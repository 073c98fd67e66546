"""An objective without a target goes the whole way: ZeRO-3, save, resume, export, audit."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from support import brightness
from support.brightness import BrightnessRun
from support.ranks import losses, prepare, pretrain_on_ranks

from echojepa.models.weights import load_encoder, read_companions
from echojepa.runs.audit import audit_run
from echojepa.runs.checkpoint import folder_of
from echojepa.runs.export import export
from echojepa.runs.folder import RunFolder, read_lines
from echojepa.runs.shards import ShardReader

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def run(phantom_manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Ten steps: five on two ranks, saved there, and five on one."""
    tree: dict[str, Any] = {
        "run_dir": str(tmp_path_factory.mktemp("brightness") / "run"),
        "data": {
            "manifest": str(phantom_manifest),
            "where": {"split": None},
            "clip": {"num_frames": 4, "fps": 10.0, "size": 48},
        },
        "model": {"encoder": {"width": 48, "depth": 2, "num_heads": 4, "patch_size": 8}},
        "optimizer": {"lr": {"peak": 5e-4}, "precision": "float32", "max_micro_batch": 4},
        "loop": {"num_steps": 10, "global_batch": 8, "log_every_steps": 1},
    }
    first = {**tree, "loop": {**tree["loop"], "stop_after_step": 5}}
    pretrain_on_ranks(first, 2, BrightnessRun)
    pretrain_on_ranks(tree, 1, BrightnessRun)
    return tree


def test_it_is_written_in_under_forty_lines() -> None:
    """Of code: from the first class on, without blank lines."""
    source = inspect.getsource(brightness)
    code = source[source.index("class BrightnessModule") :].splitlines()
    assert len([line for line in code if line.strip()]) < 40


def test_it_learns_and_is_resumed_on_another_number_of_ranks(run: dict[str, Any]) -> None:
    found = losses(run)
    assert len(found) == 10
    assert found[-1] < 0.5 * found[0]
    folder = RunFolder(run["run_dir"])
    assert [a["world_size"] for a in folder.attempts()] == [2, 1]
    assert audit_run(folder).num_samples == 80
    last = read_lines(folder.path / "metrics.jsonl")[-1]
    assert last["loss"] == last["loss_brightness"]
    assert "feature_std" in last and not [name for name in last if name.startswith("online")]
    assert "momentum" not in last


def test_its_checkpoints_hold_no_average(run: dict[str, Any]) -> None:
    with ShardReader(folder_of(RunFolder(run["run_dir"]).checkpoints, 10)) as reader:
        weights = {key for key in reader.shapes if key.startswith("weight/")}
        moments = {key for key in reader.shapes if key.startswith("exp_avg/")}
    assert {key.removeprefix("weight/") for key in weights} == {
        key.removeprefix("exp_avg/") for key in moments
    }


def test_its_encoder_is_exported(run: dict[str, Any], tmp_path: Path) -> None:
    folder = RunFolder(run["run_dir"])
    out = export(folder.path, tmp_path / "encoder", "safetensors")
    assert read_companions(out) is None
    exported = load_encoder(out).state_dict()
    with ShardReader(folder_of(folder.checkpoints, 10)) as reader:
        for name, weight in exported.items():
            assert weight.equal(reader.whole(f"weight/encoder.{name}"))


def test_it_starts_another_run(run: dict[str, Any], tmp_path: Path) -> None:
    tree = {**run, "run_dir": str(tmp_path / "next"), "init_from": f"{run['run_dir']}/encoder"}
    prepare(tree, BrightnessRun)
    assert pretrain_on_ranks(tree, 1, BrightnessRun)[-1] < 0.5
