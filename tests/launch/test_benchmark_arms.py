"""Arms as pretraining jobs: their configs, their plans, and searches that are alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.tiny import tiny_config

from echojepa.benchmark.matching import PlannedArm, StepCost
from echojepa.config import validate
from echojepa.errors import ConfigError
from echojepa.launch.benchmark_arms import ArmJobs, BenchmarkJob, Plan

MASKS = {"generators": [{"num_blocks": 1, "spatial_scale": 0.3}]}
SEARCH = [{"key": "optimizer.lr.peak", "kind": "loguniform", "low": 1e-4, "high": 1e-2}]


@pytest.fixture
def tree(phantom_manifest: Path, tmp_path: Path) -> dict[str, Any]:
    shared = tiny_config(phantom_manifest, tmp_path / "unused")
    (tmp_path / "pretrain.yaml").write_text(yaml.safe_dump(shared))
    return {
        "out": str(tmp_path / "out"),
        "manifest": str(phantom_manifest),
        "pretrain": str(tmp_path / "pretrain.yaml"),
        "evaluate": "unused.yaml",
        "settings": ["optimizer.beta1=0.8"],
        "arms": {
            "a": {"kind": "pretrained"},
            "b": {
                "kind": "pretrained",
                "objective": {"kind": "jepa", "masks": MASKS},
                "settings": ["model.predictor.depth=2"],
            },
        },
        "seeds": [3, 4],
        "reference": "a",
    }


def arms_of(tree: dict[str, Any]) -> ArmJobs:
    job = validate(tree, BenchmarkJob, "test")
    return ArmJobs(job, tree["manifest"])


def test_arms_differ_in_what_is_their_own_only(tree: dict[str, Any]) -> None:
    arms = arms_of(tree)
    a, b = arms.base("a", 3), arms.base("b", 4)
    assert (a.seed, b.seed) == (3, 4)
    assert a.optimizer.beta1 == b.optimizer.beta1 == 0.8
    assert (a.model.predictor.depth, b.model.predictor.depth) == (1, 2)
    assert len(a.objective.masks.generators) == 2
    assert len(b.objective.masks.generators) == 1, "the section is replaced, not merged"
    assert a.data == b.data
    assert [Path(job.run_dir).name for job in (a, b)] == ["a-3", "b-4"]


def test_a_plan_matches_the_reference(tree: dict[str, Any]) -> None:
    a, b = arms_of(tree).plan().arms
    assert a.num_steps == 8
    assert b.total("flops") == pytest.approx(a.total("flops"), abs=b.step.flops)


def test_a_target_needs_an_objective_that_takes_one(tree: dict[str, Any]) -> None:
    """The stand-in for the target is made; a folder is no target of this objective."""
    tree["arms"]["b"]["target_of"] = "a"
    with pytest.raises(ConfigError, match=r"objective\.target = .*'ema' or 'online'.*arms\.b"):
        arms_of(tree).plan()


def test_seconds_that_are_to_be_equal_are_measured_first(tree: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="not been measured"):
        arms_of({**tree, "match": "wall_clock"}).plan()


@pytest.mark.parametrize(
    ("tuning", "message"),
    [
        ({"num_trials": 2, "search": {"a": SEARCH}}, "arm 'b' has no tuning.search"),
        ({"search": {"c": SEARCH}}, "'c', which is no pretrained arm"),
    ],
)
def test_all_arms_are_tuned_alike(
    tree: dict[str, Any], tuning: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        validate({**tree, "tuning": tuning}, BenchmarkJob, "test")


def test_hours_come_from_measured_seconds_or_from_a_rate() -> None:
    measured = PlannedArm("a", StepCost(1e9, 8, seconds=3.6), 500)
    counted = PlannedArm("b", StepCost(1e9, 8), 7200)
    assert Plan([measured], None, 2).hours == pytest.approx(1.0)
    assert Plan([measured, counted], 2e9, 2).hours == pytest.approx(3.0)
    assert Plan([measured, counted], None, 2).hours is None
