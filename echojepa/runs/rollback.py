"""What follows an alarm of the monitor: the run goes back and takes another way, or ends.

The checkpoints after the last healthy one are set aside, the intervention is written down, and the
workers end; their launcher starts them again, and they find the healthy checkpoint. Samples
from there on follow another seed (see `Seeds`), which the audit learns from the same file.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from echojepa.errors import CollapseError
from echojepa.randomness import Seeds
from echojepa.runs.checkpoint import find_damage, step_of
from echojepa.runs.folder import RunFolder, read_lines
from echojepa.runs.monitor import Monitor, MonitorConfig
from echojepa.train import collectives
from echojepa.train.step import LoopState


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
        global_batch: int,
    ) -> None:
        """Remembers what earlier starts of the run logged up to where it goes on, `state`.

        Args:
            watched: prefixes of the metrics to judge, see `objectives.objective.Facts`.
        """
        self._config = config
        self._folder = folder
        self._origin = state.origin
        self._global_batch = global_batch
        back = [line["step"] for line in folder.interventions()]
        self._went_back_to = back[-1] if back else 0
        self._monitor = Monitor(config, watched)
        if collectives.world().rank == 0:
            logged = read_lines(folder.path / "metrics.jsonl")
            for step, line in sorted({line["step"]: line for line in logged}.items()):
                if step <= state.step:
                    self._monitor.observe(step, line)

    @property
    def healthy_until(self) -> int:
        """Last step that rank 0, which saves, knows to be healthy.

        Where the run last went back to, it may go back again.
        """
        return max(self._monitor.healthy_until, self._went_back_to)

    def judge(self, step: int, metrics: Mapping[str, float]) -> None:
        """Judge step `step`; see `train.step.Judge`.

        Raises:
            RolledBackError: the run has collapsed and gone back.
            CollapseError: it has collapsed and must not, or not again.
        """
        verdict = None
        if collectives.world().rank == 0:
            reason = self._monitor.observe(step, metrics)
            verdict = None if reason is None else self._answer(step, reason)
        verdict = collectives.broadcast(verdict)
        if verdict is not None:
            raise verdict

    def _answer(self, step: int, reason: str) -> Exception:
        """Rank 0: do what the config says, and what every rank is to raise."""
        self._folder.event("collapse", step, reason=reason)
        before = len(self._folder.interventions())
        if self._config.on_alarm == "stop" or before >= self._config.max_rollbacks:
            return CollapseError(
                f"{reason} at step {step}, after {before} rollback(s)",
                "Fork from a healthy checkpoint with another seed, a lower rate or a slower EMA.",
                str(self._folder.path),
            )
        target = self._go_back(reason)
        return RolledBackError(f"{reason} at step {step}; back to step {target}")

    def _go_back(self, reason: str) -> int:
        """Set unhealthy checkpoints aside, then note the intervention; returns where it goes on.

        In this order: a run that dies in between only meets the same alarm again.
        """
        target = 0
        for folder in sorted(self._folder.checkpoints.glob("step_*"), reverse=True):
            if step_of(folder) <= self.healthy_until and find_damage(folder) is None:
                target = step_of(folder)
                break
            aside = f"abandoned_{time.time_ns()}_{folder.name}"
            folder.rename(folder.with_name(aside))
        self._folder.intervene(target, self._origin + target * self._global_batch, reason)
        return target


def seeds_of(folder: RunFolder, base: int) -> Seeds:
    """The seeds of a run, with the changes that its interventions made."""
    inherited = folder.attempts()[-1].get("inherited_changes", ())
    return Seeds(base, (*inherited, *(line["first_sample"] for line in folder.interventions())))
