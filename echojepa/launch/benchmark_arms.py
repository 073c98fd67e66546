"""The arms of a benchmark as pretraining jobs: what a step costs, how many there are."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, model_validator

from echojepa.benchmark.config import BenchmarkConfig, PretrainedArm
from echojepa.benchmark.matching import PlannedArm, StepCost, budget_of, planned_arm, stretched
from echojepa.benchmark.runs import PROBED, record_of, settled_step_seconds
from echojepa.config import (
    FolderName,
    Strict,
    amend,
    fingerprint,
    load,
    to_tree,
    to_yaml,
    validate,
)
from echojepa.cost import flops_per_clip
from echojepa.durable import write_text
from echojepa.errors import ConfigError
from echojepa.launch import pretrain, sweep
from echojepa.launch.pretrain import PretrainJob
from echojepa.launch.sweep import Dimension, SweepJob
from echojepa.models.encoder import VideoEncoder
from echojepa.models.weights import save_encoder
from echojepa.randomness import Seeds
from echojepa.runs.folder import RunFolder

_MEASURED = "measured.json"
"""Seconds of a step, by arm."""
_FINISHED = "finished.json"
"""Hash of the config of every finished run, by its folder's name."""


class TuningConfig(Strict):
    """A search before the runs that count, equally long for every arm."""

    num_trials: int = Field(0, ge=0)
    """Trials of every arm, all to their end; 0 searches nothing."""
    search: dict[FolderName, tuple[Dimension, ...]] = Field({})
    """By arm, the settings that are searched."""
    share: float = Field(1.0, gt=0, le=1)
    """Length of a trial, as part of the arm's run."""


class BenchmarkJob(BenchmarkConfig):
    """A benchmark, and the search before it."""

    tuning: TuningConfig = TuningConfig()
    """Judged by the online probe on validation patients, on the first seed."""

    @model_validator(mode="after")
    def _tuned_alike(self) -> BenchmarkJob:
        unknown = self.tuning.search.keys() - self.pretrained.keys()
        if unknown:
            raise ValueError(f"tuning.search names {min(unknown)!r}, which is no pretrained arm")
        untuned = [name for name in self.pretrained if not self.tuning.search.get(name)]
        if self.tuning.num_trials and untuned:
            raise ValueError(f"arm {untuned[0]!r} has no tuning.search, and others would have one")
        return self


class Plan(NamedTuple):
    """What will be run."""

    arms: list[PlannedArm]
    flops_per_second: float | None
    """What training gives here, if it is known."""
    num_seeds: int

    @property
    def hours(self) -> float | None:
        """Of all runs, one after the other; evaluation, phantom and starts are not counted."""
        seconds = 0.0
        for arm in self.arms:
            if arm.step.seconds is not None:
                seconds += arm.num_steps * arm.step.seconds
            elif self.flops_per_second is not None:
                seconds += arm.num_steps * arm.step.flops / self.flops_per_second
            else:
                return None
        return self.num_seeds * seconds / 3600


class ArmJobs:
    """Pretraining jobs of all arms and seeds."""

    def __init__(self, job: BenchmarkJob, manifest: str) -> None:
        self._job = job
        self._manifest = manifest
        self.out = Path(job.out)

    def run_dir(self, arm: str, seed: int) -> Path:
        """Where a run lies."""
        return self.out / "runs" / f"{arm}-{seed}"

    def base(self, arm: str, seed: int, target: Path | None = None) -> PretrainJob:
        """The job of an arm with the length and the schedules that its settings state.

        Raises:
            ConfigError: as `load`.
        """
        own = {
            "run_dir": str(self.run_dir(arm, seed)),
            "data.manifest": self._manifest,
            "seed": seed,
        }
        shared = load(self._job.pretrain, [*self._job.settings, *_settings(own)], PretrainJob)
        tree, config = to_tree(shared), self._job.arms[arm]
        if isinstance(config, PretrainedArm):
            tree["objective"] = dict(config.objective or tree["objective"])
        if target is not None:
            tree["objective"]["target"] = str(target)
        return amend(validate(tree, PretrainJob, f"arms.{arm}"), config.settings)

    def tuned(self, arm: str, seed: int) -> PretrainJob:
        """The same with its real target, and with what a search has found."""
        best = _read(self._best_file(arm)).get("config", {})
        return amend(self.base(arm, seed, self._target(arm, seed)), _settings(best))

    def plan(self) -> Plan:
        """The length of every arm; nothing is written.

        Raises:
            ConfigError: a config is wrong, a target leaves nothing of its arm's share, or seconds
                are to be equal and were not measured.
        """
        seconds = self._measured()
        planned: dict[str, PlannedArm] = {}
        with tempfile.TemporaryDirectory() as folder:
            steps = {}
            for arm in self._job.pretrained:
                job = self._stand_in_job(arm, Path(folder))
                steps[arm] = _step_cost(job, seconds.get(arm))
        reference = self._job.reference
        if self._job.match == "wall_clock" and seconds.keys() != steps.keys():
            raise ConfigError(
                "seconds of a step have not been measured yet",
                "Start the benchmark, which begins with that; or plan with match=flops.",
                str(self.out),
            )
        stated = self.base(reference, self._job.seeds[0]).loop.num_steps
        budget = budget_of(self._job, steps[reference], stated)
        for arm, step in steps.items():
            planned[arm] = planned_arm(self._job, arm, step, budget, planned)
        return Plan(list(planned.values()), self._rate(steps), len(self._job.seeds))

    def measure(self) -> None:
        """Short runs of every arm, one after the other, for the seconds of a step."""
        known = self._measured()
        for arm in (name for name in self._job.pretrained if name not in known):
            folder = self.out / "measured" / arm
            job = self._stand_in_job(arm, folder.with_name(f"{arm}-target"))
            short = [
                *stretched(job, self._job.measured_steps),
                f"run_dir={json.dumps(str(folder))}",
                "loop.log_every_steps=1",
                "loop.probe_every_steps=null",
            ]
            pretrain.launch(amend(job, short))
            known[arm] = settled_step_seconds(folder)
            write_text(self.out / _MEASURED, json.dumps(known, indent=1))

    def tune(self, planned: PlannedArm) -> None:
        """Search the settings of an arm, if it has a search; what is found is written down."""
        tuning, arm, seed = self._job.tuning, planned.name, self._job.seeds[0]
        best = self._best_file(arm)
        if not tuning.num_trials or best.is_file():
            return
        base = self.base(arm, seed, self._target(arm, seed))
        length = max(1, round(planned.num_steps * tuning.share))
        if base.probe is None:
            raise ConfigError("tuning needs the online probe", "Set `probe`.", self._job.pretrain)
        task = base.probe.task
        stated = best.with_name("base.yaml")
        best.parent.mkdir(parents=True, exist_ok=True)
        write_text(stated, to_yaml(amend(base, stretched(base, length))))
        search = SweepJob(
            out=str(best.parent),
            base=str(stated),
            search=tuning.search[arm],
            metric=f"probe/{task.name}_{PROBED[task.kind]}",
            num_trials=tuning.num_trials,
            grace_steps=length,  # no trial is stopped: all arms spend the same
        )
        write_text(best, json.dumps(sweep.launch(search), indent=1, default=str))

    def run(self, planned: PlannedArm, seed: int) -> None:
        """Pretrain, or go on, or find it finished.

        Raises:
            UserError: as `pretrain.launch`.
            TrainingFailedError: likewise.
        """
        job = self.tuned(planned.name, seed)
        job = pretrain.with_absolute_paths(amend(job, stretched(job, planned.num_steps)))
        file, name = self.out / _FINISHED, Path(job.run_dir).name
        finished = _read(file)
        if finished.get(name) == fingerprint(job) and RunFolder(job.run_dir).encoder.is_dir():
            return
        pretrain.launch(job)  # says it, if the folder holds a run with other settings
        write_text(file, json.dumps({**finished, name: fingerprint(job)}, indent=1))

    def replanned(self, plan: Plan, arm: PlannedArm, done: Sequence[PlannedArm]) -> PlannedArm:
        """The length of an arm once its search is over: what was found may cost more or less."""
        if not self._best_file(arm.name).is_file():
            return arm
        reference = next(a for a in plan.arms if a.name == self._job.reference)
        budget = budget_of(self._job, reference.step, reference.num_steps)
        step = _step_cost(self.tuned(arm.name, self._job.seeds[0]), arm.step.seconds)
        return planned_arm(self._job, arm.name, step, budget, {a.name: a for a in done})

    def _target(self, arm: str, seed: int) -> Path | None:
        config = self._job.arms[arm]
        if not isinstance(config, PretrainedArm) or config.target_of is None:
            return None
        return self.run_dir(config.target_of, seed) / "encoder"

    def _stand_in_job(self, arm: str, folder: Path) -> PretrainJob:
        """An arm's job before its target is there: an encoder of its size stands in for it."""
        config, seed = self._job.pretrained[arm], self._job.seeds[0]
        if config.target_of is None:
            return self.base(arm, seed)
        target = self._stand_in_job(config.target_of, folder / "target")
        encoder = VideoEncoder(target.model.encoder)
        clip = to_tree(target.data.clip)
        save_encoder(folder, target.model.encoder, encoder.state_dict(), clip, "# A stand-in\n")
        return self.base(arm, seed, folder)

    def _best_file(self, arm: str) -> Path:
        return self.out / "tuning" / arm / "best.json"

    def _measured(self) -> dict[str, float]:
        return _read(self.out / _MEASURED)

    def _rate(self, steps: dict[str, StepCost]) -> float | None:
        """Operations a second: as the config says, else what finished runs have reached."""
        if self._job.flops_per_second is not None:
            return self._job.flops_per_second
        rates = []
        for arm, step in steps.items():
            for seed in self._job.seeds:
                if (self.run_dir(arm, seed) / "encoder").is_dir():
                    rates.append(step.flops / record_of(self.run_dir(arm, seed)).step_seconds)
        return sorted(rates)[len(rates) // 2] if rates else None


def _step_cost(job: PretrainJob, seconds: float | None) -> StepCost:
    flops = flops_per_clip(job.build_objective(Seeds(job.seed)).passes())
    return StepCost(float(flops * job.loop.global_batch), job.loop.global_batch, seconds)


def _read(file: Path) -> dict[str, Any]:
    """A JSON file; empty if there is none."""
    found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return found


def _settings(found: dict[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in found.items()]
