"""Equal cost: steps of arms from the budget, shares and targets; schedules keep their shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.tiny import tiny_config

from echojepa.benchmark.config import BenchmarkConfig
from echojepa.benchmark.matching import PlannedArm, StepCost, budget_of, planned_arm, stretched
from echojepa.config import amend, validate
from echojepa.errors import ConfigError
from echojepa.pretrain import PretrainConfig

TREE: dict[str, Any] = {
    "out": "out",
    "manifest": "manifest.parquet",
    "pretrain": "pretrain.yaml",
    "evaluate": "evaluate.yaml",
    "arms": {
        "salt": {"kind": "pretrained", "target_of": "teacher"},
        "ours": {"kind": "pretrained"},
        "half": {"kind": "pretrained", "share": 0.5},
        "teacher": {"kind": "pretrained", "share": 0.25, "shown": False},
        "random": {"kind": "untrained"},
    },
    "seeds": [0, 1],
    "reference": "ours",
}
COSTS = {
    "ours": StepCost(100.0, 16, 2.0),
    "half": StepCost(40.0, 8, 1.0),
    "teacher": StepCost(30.0, 16, 0.5),
    "salt": StepCost(70.0, 16, 4.0),
}


def config(**changes: Any) -> BenchmarkConfig:
    return validate({**TREE, **changes}, BenchmarkConfig, "test")


def planned(benchmark: BenchmarkConfig, num_steps: int = 60) -> dict[str, PlannedArm]:
    budget = budget_of(benchmark, COSTS[benchmark.reference], num_steps)
    found: dict[str, PlannedArm] = {}
    for name in benchmark.pretrained:
        found[name] = planned_arm(benchmark, name, COSTS[name], budget, found)
    return found


@pytest.mark.parametrize(
    ("match", "steps"),
    [
        # 6000 operations: a quarter of them are 50 steps of the teacher, 4500 are left for salt.
        ("flops", {"ours": 60, "half": 75, "teacher": 50, "salt": 64}),
        ("samples", {"ours": 60, "half": 60, "teacher": 15, "salt": 45}),
        ("wall_clock", {"ours": 60, "half": 60, "teacher": 60, "salt": 22}),
    ],
)
def test_all_arms_cost_their_share_of_what_the_reference_costs(
    match: str, steps: dict[str, int]
) -> None:
    found = planned(config(match=match))
    assert {name: arm.num_steps for name, arm in found.items()} == steps
    whole = found["ours"].total(match)  # type: ignore[arg-type]
    assert found["half"].total(match) == pytest.approx(whole / 2, rel=0.02)  # type: ignore[arg-type]
    assert found["salt"].total(match) == pytest.approx(whole, rel=0.02)  # type: ignore[arg-type]


def test_every_arm_comes_after_its_target() -> None:
    assert list(config().pretrained) == ["teacher", "salt", "ours", "half"]
    assert config().shown == ["salt", "ours", "half", "random"]


def test_a_target_that_leaves_nothing_is_an_error() -> None:
    arms = {**TREE["arms"], "teacher": {"kind": "pretrained"}}
    with pytest.raises(ConfigError, match=r"'salt' has a share of 1, .* 1\.00 of the budget"):
        planned(config(arms=arms))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": "random"}, "no pretrained arm"),
        ({"reference": "half"}, "share 1"),
        ({"seeds": [1, 1]}, "twice"),
        ({"phantom": "phantom.yaml"}, "either"),
        ({"compared_with": ["teacher"]}, "compared_with names 'teacher'"),
        ({"arms": {"ours": {"kind": "pretrained"}, "predict mean": {"kind": "untrained"}}}, "mean"),
        (
            {"arms": {**TREE["arms"], "teacher": {"kind": "pretrained", "target_of": "salt"}}},
            "circle: salt -> teacher -> salt",
        ),
        ({"arms": {**TREE["arms"], "x": {"kind": "pretrained", "target_of": "y"}}}, "'y' is no"),
    ],
)
def test_what_contradicts_itself_is_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**changes)


def test_schedules_and_cadence_keep_their_part_of_a_run(tmp_path: Path) -> None:
    tree = tiny_config(tmp_path / "manifest.parquet", tmp_path / "run")
    tree["loop"] |= {"num_steps": 100, "checkpoint_every_steps": 50, "image_every_steps": 100}
    tree["optimizer"]["lr"] = {
        "peak": 1e-3,
        "warmup_steps": 10,
        "shape": "cosine",
        "final": 0.0,
        "steps": 120,
    }
    short = validate(tree, PretrainConfig, "test")
    long = amend(short, stretched(short, 250))
    assert long.loop.num_steps == 250
    assert (long.loop.checkpoint_every_steps, long.loop.image_every_steps) == (125, 250)
    assert long.loop.probe_every_steps is None
    assert (long.optimizer.lr.warmup_steps, long.optimizer.lr.steps) == (25, 300)
    assert long.optimizer.weight_decay == short.optimizer.weight_decay
    for part in (0.05, 0.1, 0.5, 0.9):
        one, other = (
            c.optimizer.lr.value(round(part * c.loop.num_steps) - 1, c.loop.num_steps)
            for c in (short, long)
        )
        assert other == pytest.approx(one, rel=0.03)
    assert amend(short, stretched(short, 1)).optimizer.lr.steps == 1
