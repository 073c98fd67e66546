"""Equal cost: how many steps every arm gets, and what becomes of its schedules.

The budget is what the reference costs: its steps, times what one of them costs. An arm gets its
share of it, less what its target has cost, and as many whole steps as come closest.

    steps = round((budget x share - cost of the target's run) / cost of a step)

Costs are floating-point operations, clips, or seconds. Operations are those of `echojepa.cost`:
matrix products and attention of all forward and backward passes of a training step; the online
probe, data and communication are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from echojepa.benchmark.config import BenchmarkConfig, Match
from echojepa.errors import ConfigError
from echojepa.pretrain import PretrainConfig

_SCHEDULES = ("lr", "weight_decay", "momentum")
_CADENCES = ("checkpoint_every_steps", "image_every_steps", "probe_every_steps")


class StepCost(NamedTuple):
    """What one optimiser step of an arm costs."""

    flops: float
    num_clips: int
    seconds: float | None = None
    """On this machine, if it was measured."""

    def by(self, match: Match) -> float:
        """In the unit that arms are matched by."""
        if match == "wall_clock":
            assert self.seconds is not None, "measured before"
            return self.seconds
        return self.flops if match == "flops" else float(self.num_clips)


class PlannedArm(NamedTuple):
    """An arm and its length."""

    name: str
    step: StepCost
    num_steps: int
    target: PlannedArm | None = None

    def total(self, match: Match) -> float:
        """What a run costs, that of its target included."""
        before = 0.0 if self.target is None else self.target.total(match)
        return before + self.num_steps * self.step.by(match)


def budget_of(config: BenchmarkConfig, step: StepCost, num_steps: int) -> float:
    """What a run of the reference costs, in the unit that arms are matched by."""
    return num_steps * step.by(config.match)


def planned_arm(
    config: BenchmarkConfig,
    name: str,
    step: StepCost,
    budget: float,
    others: Mapping[str, PlannedArm],
) -> PlannedArm:
    """The length of an arm.

    Args:
        others: planned before it, its target among them.

    Raises:
        ConfigError: its target leaves nothing of its share.
    """
    arm = config.pretrained[name]
    target = None if arm.target_of is None else others[arm.target_of]
    spent = 0.0 if target is None else target.total(config.match)
    steps = (budget * arm.share - spent) / step.by(config.match)
    if steps < 1:
        raise ConfigError(
            f"arm {name!r} has a share of {arm.share:g}, and its target costs "
            f"{spent / budget:.2f} of the budget: not one step is left",
            "Give the target a smaller share.",
            f"arms.{name}",
        )
    return PlannedArm(name, step, round(steps), target)


def stretched(config: PretrainConfig, num_steps: int) -> list[str]:
    """Settings that make a run so long.

    All that is stated in steps of a run keeps its part of the whole: warm-ups, lengths of
    schedules, and how often it is saved, pictured and probed. The number of probes, whose cost is
    not counted, is the same for all arms then.
    """
    factor = num_steps / config.loop.num_steps

    def scaled(steps: int) -> int:
        return max(1, round(steps * factor))

    settings = [f"loop.num_steps={num_steps}"]
    for name in _SCHEDULES:
        schedule = getattr(config.optimizer, name)
        settings.append(f"optimizer.{name}.warmup_steps={round(schedule.warmup_steps * factor)}")
        if schedule.steps is not None:
            settings.append(f"optimizer.{name}.steps={scaled(schedule.steps)}")
    for name in _CADENCES:
        every = getattr(config.loop, name)
        if every is not None:
            settings.append(f"loop.{name}={scaled(every)}")
    return settings
