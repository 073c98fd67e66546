"""What a benchmark compares: arms, seeds, and what "equal cost" means."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue, model_validator

from echojepa.config import FolderName, Strict
from echojepa.probes.fitting import BASELINE

Match = Literal["flops", "samples", "wall_clock"]
REST = "rest"
"""What those are called who are not held out."""


class PretrainedArm(Strict):
    """A way of pretraining."""

    kind: Literal["pretrained"]
    objective: dict[str, JsonValue] | None = None
    """The `objective` section of this arm, in place of the one that the pretraining config has."""
    settings: tuple[str, ...] = ()
    """key=value settings of the pretraining config that are this arm's own."""
    share: float = Field(1.0, gt=0, le=1)
    """Part of the budget that this arm may spend, what its target has cost included."""
    target_of: str | None = None
    """The arm whose exported encoder of the same seed becomes this arm's `objective.target`. What
    it has cost counts towards this arm."""
    shown: bool = True
    """Whether it is judged; false for an arm that only serves as a target."""


class UntrainedArm(Strict):
    """The architecture of the pretraining config with random weights."""

    kind: Literal["untrained"]
    settings: tuple[str, ...] = ()
    """key=value settings of the pretraining config that are this arm's own."""
    shown: ClassVar[bool] = True
    """It is always judged: nothing else can be done with it."""


AnyArm = Annotated[PretrainedArm | UntrainedArm, Field(discriminator="kind")]


class HeldOut(Strict):
    """A group of patients."""

    column: str
    """Text column of the manifest."""
    values: tuple[str, ...] = Field(min_length=1)
    """The group has one of these in it."""


class BenchmarkConfig(Strict):
    """An experiment that anyone can repeat."""

    command = "benchmark"

    out: str
    """Folder of runs, results and the page. The same command goes on where it was interrupted."""
    phantom: str | None = None
    """Config of the phantom that is written into OUT/phantom, if no manifest is given."""
    phantom_settings: tuple[str, ...] = ()
    """key=value settings of it."""
    manifest: str | None = None
    """A manifest that is there already."""
    held_out: dict[FolderName, HeldOut] = Field({})
    """Groups of patients whom no arm is pretrained on and no probe is fitted on, each under a name
    of its own. Probes are judged on their test split as on other people's patients."""
    pretrain: str
    """Pretraining config that all arms share, relative to this working directory."""
    settings: tuple[str, ...] = ()
    """key=value settings of it, for all arms."""
    arms: dict[FolderName, AnyArm] = Field(min_length=1)
    """What is compared, each under a name of its own."""
    seeds: tuple[int, ...] = Field(min_length=1)
    """Every arm is pretrained once from each."""
    reference: str
    """The arm whose `loop.num_steps` make the budget, and which the others are compared with."""
    compared_with: tuple[str, ...] = ()
    """More arms that all others are compared with, such as the one that learns from pixels."""
    match: Match = "flops"
    """What all arms get as much of: floating-point operations of training steps, clips, or seconds
    on this machine, as short runs of every arm measure them."""
    measured_steps: int = Field(20, gt=2)
    """Steps of these short runs."""
    flops_per_second: float | None = Field(None, gt=0)
    """What this machine gives in training, for the hours that --plan estimates; null takes what
    earlier runs in OUT have reached."""
    evaluate: str
    """Evaluation config, relative to this working directory; the arms take its encoders' place."""
    evaluate_settings: tuple[str, ...] = ()
    """key=value settings of it."""

    @model_validator(mode="after")
    def _consistent(self) -> BenchmarkConfig:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds holds a seed twice")
        if REST in self.held_out:
            raise ValueError(
                f"held_out has the group {REST!r}, which is what the others are called"
            )
        if BASELINE in self.arms:
            raise ValueError(f"{BASELINE!r} is what the probe without pixels is called")
        if (self.phantom is None) == (self.manifest is None):
            raise ValueError("name either a phantom or a manifest")
        reference = self.arms.get(self.reference)
        if not isinstance(reference, PretrainedArm) or not reference.shown:
            raise ValueError(f"reference {self.reference!r} is no pretrained arm that is shown")
        if reference.share != 1 or reference.target_of is not None:
            raise ValueError("the reference makes the budget: it has the share 1 and no target_of")
        hidden = [name for name in self.compared_with if name not in self.shown]
        if hidden:
            raise ValueError(f"compared_with names {hidden[0]!r}, which is no arm that is shown")
        self._check_targets()
        return self

    def _check_targets(self) -> None:
        arms = self._pretrained
        for name, arm in arms.items():
            seen = [name]
            while arm.target_of is not None:
                if arm.target_of not in arms:
                    raise ValueError(f"target_of {arm.target_of!r} is no pretrained arm")
                seen.append(arm.target_of)
                if len(set(seen)) < len(seen):
                    raise ValueError(f"target_of goes round in a circle: {' -> '.join(seen)}")
                arm = arms[arm.target_of]

    @property
    def _pretrained(self) -> dict[str, PretrainedArm]:
        return {name: arm for name, arm in self.arms.items() if isinstance(arm, PretrainedArm)}

    @property
    def pretrained(self) -> dict[str, PretrainedArm]:
        """Arms that are pretrained, every one after its target."""
        arms = self._pretrained
        ordered: dict[str, PretrainedArm] = {}

        def add(name: str) -> None:
            target = arms[name].target_of
            if target is not None:
                add(target)
            ordered.setdefault(name, arms[name])

        for name in arms:
            add(name)
        return ordered

    @property
    def shown(self) -> list[str]:
        """Arms that are judged, as the config orders them."""
        return [name for name, arm in self.arms.items() if arm.shown]

    @property
    def opponents(self) -> list[str]:
        """Arms that all others are compared with, the reference first."""
        return list(dict.fromkeys([self.reference, *self.compared_with]))
