from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError
from support.paths import DATA

from echojepa.train.engine import OptimizerConfig
from echojepa.train.schedules import Schedule

GOLDEN: dict[str, Any] = json.loads((DATA / "schedules.json").read_text())


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        (
            "warmup_cosine",
            Schedule(start=1e-5, peak=1e-3, warmup_steps=10, shape="cosine", final=1e-6, steps=50),
        ),
        ("linear_decay", Schedule(peak=5e-5, shape="linear", final=1e-7, steps=40)),
        ("cosine_wd", Schedule(peak=0.04, shape="cosine", final=0.4, steps=40)),
    ],
)
def test_published_values(name: str, schedule: Schedule) -> None:
    values = [schedule.value(step, 999) for step in range(len(GOLDEN[name]["values"]))]
    assert values == pytest.approx(GOLDEN[name]["values"], rel=1e-9)


def test_warm_up_then_constant() -> None:
    schedule = Schedule(start=0.0, peak=2.0, warmup_steps=4)
    assert [schedule.value(step, 10) for step in range(6)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]


def test_length_defaults_to_the_run_and_ends_at_the_final_value() -> None:
    schedule = Schedule(peak=1.0, shape="linear", final=0.0)
    assert schedule.value(9, 10) == 0.0
    assert schedule.value(50, 10) == 0.0, "beyond its length a schedule stays at its end"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peak": 1.0, "shape": "cosine"}, "needs a final value"),
        ({"peak": 1.0, "final": 0.1}, "has no final value"),
        ({"peak": 1.0, "warmup_steps": 10, "steps": 10}, "do not fit"),
    ],
)
def test_contradictions_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Schedule(**settings)


@pytest.mark.parametrize(
    ("momentum", "message"),
    [
        ({"peak": 1.01}, "momentum.peak = 1.01 is above 1"),
        ({"peak": 0.99, "shape": "linear", "final": 2.0}, "momentum.final = 2.0 is above 1"),
        ({"peak": 0.99, "start": 1.5, "warmup_steps": 3}, "momentum.start = 1.5 is above 1"),
        ({"peak": -0.1}, "greater than or equal to 0"),
        ({"peak": float("inf")}, "finite number"),
        ({"peak": float("nan")}, "finite number|greater than or equal"),
    ],
)
def test_an_average_stays_an_average(momentum: dict[str, Any], message: str) -> None:
    settings = {"lr": {"peak": 1e-3}, "max_micro_batch": 1}
    with pytest.raises(ValidationError, match=message):
        OptimizerConfig.model_validate({**settings, "momentum": momentum})
    assert OptimizerConfig.model_validate({**settings, "momentum": {"peak": 1.0}})
