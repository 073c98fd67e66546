"""What follows an alarm of the monitor: the run goes back and takes another way, or ends.

The checkpoints after the last healthy one are set aside, the intervention is written down, and the
workers end; their launcher starts them again, and they find the healthy checkpoint. Samples
from there on follow another seed (see `Seeds`), which the audit learns from the same file.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from echojepa.durable import flush
from echojepa.errors import CollapseError
from echojepa.randomness import Seeds
from echojepa.runs.checkpoint import find_damage, step_of
from echojepa.runs.folder import RunFolder
from echojepa.runs.monitor import Alarm, Monitor, MonitorConfig
from echojepa.train import collectives
from echojepa.train.loop import LoopConfig
from echojepa.train.step import LoopState

_CHECKPOINTS = 4
"""The steps of so many checkpoints may be discarded, if nobody has said."""


class RolledBackError(Exception):
    """The run has gone back to an earlier checkpoint; starting it again goes on from there."""


class CollapseGuard:
    """Judges every logged step; every rank calls it. Rank 0 judges, all ranks learn its verdict."""

    def __init__(
        self,
        config: MonitorConfig,
        folder: RunFolder,
        watched: Iterable[str],
        state: LoopState,
        loop: LoopConfig,
    ) -> None:
        """Remembers what earlier starts of the run logged up to where it goes on, `state`.

        Args:
            watched: prefixes of the metrics to judge, see `objectives.objective.Facts`.
        """
        self._config = config
        self._folder = folder
        self._origin = state.origin
        self._loop = loop
        back = [line["step"] for line in folder.interventions()]
        self._went_back_to = back[-1] if back else 0
        self._monitor = Monitor(config, watched)
        if collectives.world().rank == 0:
            for line in folder.logged():
                if line["step"] <= state.step:
                    self._monitor.observe(line["step"], line)

    @property
    def healthy_until(self) -> tuple[int, ...]:
        """Last steps that rank 0, which saves, may have to go back to.

        Where the run last went back to, it may go back again.
        """
        known = (self._monitor.healthy_until, self._monitor.steady_until)
        return tuple(max(step, self._went_back_to) for step in known)

    def judge(self, step: int, metrics: Mapping[str, float]) -> None:
        """Judge step `step`; see `train.step.Judge`.

        Raises:
            RolledBackError: the run has collapsed and gone back.
            CollapseError: it has collapsed and must not go back, not again, or not so far.
        """
        verdict = None
        if collectives.world().rank == 0:
            alarm = self._monitor.observe(step, metrics)
            verdict = None if alarm is None else self._answer(step, alarm)
        verdict = collectives.broadcast(verdict)
        if verdict is not None:
            raise verdict

    def _answer(self, step: int, alarm: Alarm) -> Exception:
        """Rank 0: do what the config says, and what every rank is to raise."""
        target = self._target(max(alarm.healthy_until, self._went_back_to))
        discards = step - target
        before = len(self._folder.interventions())
        self._folder.event("collapse", step, reason=alarm.reason, healthy=target, discards=discards)
        if self._config.on_alarm == "stop" or before >= self._config.max_rollbacks:
            return CollapseError(
                f"{alarm.reason} at step {step}, after {before} rollback(s)",
                "Fork from a healthy checkpoint with another seed, a lower rate or a slower EMA.",
                str(self._folder.path),
            )
        limit = self._config.max_rollback_steps or self._few_steps()
        if discards > limit:
            healthy = f"step {target}" if target else "none, but for the beginning"
            return CollapseError(
                f"{alarm.reason} at step {step}; the newest healthy checkpoint is {healthy}: going "
                f"back would discard {discards} steps, the limit is {limit}",
                f"Look at the curves. To go back, set monitor.max_rollback_steps={discards}; to go "
                "on as it is, lower monitor.rank_floor or spread_floor; or fork from a checkpoint.",
                str(self._folder.path),
            )
        self._go_back(target, alarm.reason)
        return RolledBackError(f"{alarm.reason} at step {step}; back to step {target}")

    def _few_steps(self) -> int:
        """How many steps may be discarded if nobody has said: fewer than the monitor needs to see a
        fall would make every rollback too long."""
        seen = (self._config.window + self._config.patience) * self._loop.log_every_steps
        return max(_CHECKPOINTS * self._loop.checkpoint_every_steps, 2 * seen)

    def _target(self, healthy_until: int) -> int:
        """The newest checkpoint that is whole and healthy; 0 is the beginning."""
        for folder in sorted(self._folder.checkpoints.glob("step_*"), reverse=True):
            if step_of(folder) <= healthy_until and find_damage(folder) is None:
                return step_of(folder)
        return 0

    def _go_back(self, target: int, reason: str) -> None:
        """Set later checkpoints aside, then note the intervention.

        In this order, each step on disk: a run that dies in between only meets the alarm again.
        """
        for folder in self._folder.checkpoints.glob("step_*"):
            if step_of(folder) > target:
                aside = f"abandoned_{time.time_ns()}_{folder.name}"
                folder.rename(folder.with_name(aside))
        flush(self._folder.checkpoints)
        first_sample = self._origin + target * self._loop.global_batch
        self._folder.intervene(target, first_sample, reason)


def seeds_of(folder: RunFolder, base: int) -> Seeds:
    """The seeds of a run, with the changes that its interventions made."""
    inherited = folder.attempts()[-1].get("inherited_changes", ())
    return Seeds(base, (*inherited, *(line["first_sample"] for line in folder.interventions())))
