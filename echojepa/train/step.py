"""One optimiser step in records: what goes in, what comes out, and who is called around it.

The loop knows who saves, judges and watches only by the protocols here; `runs` has those who do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from echojepa.data.problem import ClipProblem
from echojepa.data.stream import PADDING
from echojepa.objectives.objective import Output
from echojepa.train import collectives
from echojepa.train.feed import StepBatch


@dataclass
class LoopState:
    """Where a run stands; saved whole, loaded whole."""

    step: int = 0
    """Next optimiser step, which is the data cursor as well."""
    origin: int = 0
    """Global sample index at which step 0 began."""
    num_applied: int = 0
    """Steps that changed the weights: Adam's own count."""
    num_dropped_in_a_row: int = 0
    """Steps since the last one that changed the weights."""
    num_seen: int = 0
    """Samples trained on or found unreadable."""
    num_unread: int = 0
    inherited_changes: tuple[int, ...] = ()
    """Seed changes of the run that this one was forked from; see `randomness.Seeds`."""


class Agreement(NamedTuple):
    """What all ranks know of a step before they compute it; equal on every rank."""

    weight: float
    """Readable clips in the global batch."""
    num_samples: int
    """Clips in the global batch, readable or not."""
    problems: list[ClipProblem]
    """Those that could not be read."""
    save_requested: bool
    """Whether a checkpoint is wanted after this step."""


def agree(batch: StepBatch, *, save_requested: bool) -> Agreement:
    """Agree on a step; a collective call.

    One sum over ranks for what every step needs; the problems themselves travel only if there are
    any, which all ranks learn from the same sum.
    """
    problems = batch.problems()
    num_samples = sum(int((m.samples != PADDING).sum()) for m in batch.micro_batches)
    counts = [batch.total_weight, num_samples, len(problems), save_requested]
    weight, num_samples, num_problems, requests = collectives.total(counts).tolist()
    if num_problems:
        problems = [p for part in collectives.gather(problems) for p in part]
    return Agreement(weight, int(num_samples), problems, requests > 0)


class StepResult(NamedTuple):
    """What became of an optimiser step."""

    applied: bool
    """False if a gradient was not finite: nothing has changed then."""
    gradient_norm: float
    """Global 2-norm before clipping."""


@dataclass(frozen=True)
class StepReport:
    """What happened in one optimiser step."""

    batch: StepBatch
    result: StepResult
    losses: NDArray[np.float64]
    """By the objective's names, over the global batch, [L]."""
    weight: float
    """Readable clips in the global batch."""
    output: Output
    """Of the rank's last micro-batch."""
    rates: dict[str, float]


class Watcher(Protocol):
    """What the loop reports to."""

    def after_step(self, report: StepReport) -> dict[str, float] | None:
        """Take note of a step; returns metrics if it was one that is logged."""

    def unreadable(self, step: int, problems: Sequence[ClipProblem]) -> None:
        """Take note of clips that could not be read, from all ranks."""


class Saver(Protocol):
    """Who writes checkpoints."""

    def save(self, state: LoopState) -> None:
        """Write a checkpoint; every rank calls this with the same state."""


class Judge(Protocol):
    """Who decides whether a run may go on."""

    def judge(self, step: int, metrics: dict[str, float]) -> None:
        """See the metrics of a logged step, on every rank; raises to end the run."""
