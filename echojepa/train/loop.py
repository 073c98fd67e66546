"""THE TRAINING LOOP. One optimiser step after the other, from data to checkpoint.

    for every batch of the stream:
        agree on the step: how many clips are readable, whether to save afterwards
        forward and backward, the loss averaged over the readable clips of all ranks
        step (or drop the step, if a gradient is not finite), move the averages
        record which samples were trained on, log, and now and then save

It knows neither Ray nor DeepSpeed nor what is learnt: data come from a `Feed`, the model is behind
an `Engine`, the losses are an `Objective`'s, and what happens around a step stands in `train.step`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from echojepa.config import Strict, changeable
from echojepa.data.stream import PADDING
from echojepa.errors import BadDataError, DroppedStepsError
from echojepa.objectives.objective import Objective, Output
from echojepa.train import collectives
from echojepa.train.engine import Engine, OptimizerConfig
from echojepa.train.feed import MicroBatch, StepBatch
from echojepa.train.record import SampleRecord
from echojepa.train.step import (
    Agreement,
    Judge,
    LoopState,
    Saver,
    StepReport,
    StepResult,
    Watcher,
    agree,
)
from echojepa.train.worker import Worker

_BAD_FRACTION_WINDOW = 1000
"""The share of unreadable clips is judged over at least this many, or one would end a run."""


class LoopConfig(Strict):
    """Length and batch of a run, and how often things happen."""

    num_steps: int = Field(gt=0)
    """Optimiser steps of the whole run; schedules that need a length use it."""
    global_batch: int = Field(gt=0)
    """Clips per optimiser step (G), the same for any number of workers."""
    stop_after_step: int | None = changeable(None, gt=0)
    """Save and end in good order once this many steps are done; a later start goes on."""
    max_dropped_steps: int = changeable(20, gt=0)
    """The run ends when so many steps in a row were dropped, because a gradient was not finite or
    no clip could be read."""
    checkpoint_every_steps: int = changeable(500, gt=0)
    """Steps between two checkpoints."""
    keep_last: int = changeable(2, gt=0)
    """Newest checkpoints kept. Two, so that a damaged one has a predecessor."""
    keep_every_steps: int | None = changeable(None, gt=0)
    """Checkpoints at multiples of this many steps are kept forever."""
    log_every_steps: int = changeable(10, gt=0)
    """Steps between two lines of metrics."""
    image_every_steps: int = changeable(500, gt=0)
    """Steps between two pictures of a batch with its masks."""
    probe_every_steps: int | None = changeable(None, gt=0)
    """Fit a small probe on the frozen encoder this often; null never."""

    @property
    def last_step(self) -> int:
        """Where this start of the run ends."""
        return min(self.num_steps, self.stop_after_step or self.num_steps)


@dataclass
class Loop:
    """Everything one run of the loop needs."""

    engine: Engine
    objective: Objective
    config: LoopConfig
    optimizer: OptimizerConfig
    max_bad_fraction: float
    state: LoopState
    record: SampleRecord
    watcher: Watcher
    saver: Saver
    judge: Judge
    worker: Worker
    """May ask for a checkpoint between two of the regular ones."""

    def run(self, feed: Iterable[StepBatch]) -> dict[str, float]:
        """Train until the feed ends; returns the last metrics.

        Raises:
            BadDataError: more than `max_bad_fraction` of the samples could not be read.
            DroppedStepsError: `max_dropped_steps` in a row were dropped.
        """
        metrics: dict[str, float] = {}
        saved = self.state.step
        self.worker.beat()
        for batch in feed:
            agreed = agree(batch, save_requested=self.worker.save_requested())
            self._count(batch.step, agreed)
            report = self._train_step(batch, agreed.weight)
            self.record.append(batch, applied=report.result.applied)
            self.state.step = batch.step + 1
            self.state.num_applied += report.result.applied
            logged = self.watcher.after_step(report)
            if logged is not None:
                metrics = logged
                self.judge.judge(self.state.step, logged)
            self._check_progress(report)
            # In this order: what a judge calls collapsed is never saved; a resize that asked for
            # the checkpoint is answered only when it is there.
            if agreed.save_requested or self.state.step % self.config.checkpoint_every_steps == 0:
                self._save()
                saved = self.state.step
            if agreed.save_requested and self.state.step < self.config.last_step:
                self.worker.save_done()
            self.worker.beat()
        if saved != self.state.step:
            self._save()
        self.worker.finished()
        return metrics

    def _save(self) -> None:
        """The record first: after a power cut no checkpoint may stand without it."""
        self.record.sync()
        self.saver.save(self.state)

    def _count(self, step: int, agreed: Agreement) -> None:
        """Count the samples of a step, and report those that could not be read."""
        self.state.num_seen += agreed.num_samples
        self.state.num_unread += len(agreed.problems)
        if not agreed.problems:
            return
        self.watcher.unreadable(step, agreed.problems)
        allowed = self.max_bad_fraction * max(self.state.num_seen, _BAD_FRACTION_WINDOW)
        if self.state.num_unread > allowed:
            raise BadDataError(
                f"{self.state.num_unread} of {self.state.num_seen} samples could not be read, "
                f"more than max_bad_fraction = {self.max_bad_fraction} allows",
                "See rejected.parquet in the run folder, then fix the clips or raise "
                "data.max_bad_fraction.",
                "data",
            )

    def _check_progress(self, report: StepReport) -> None:
        """Count dropped steps."""
        if report.result.applied:
            self.state.num_dropped_in_a_row = 0
            return
        self.state.num_dropped_in_a_row += 1
        if self.state.num_dropped_in_a_row >= self.config.max_dropped_steps:
            step = report.batch.step
            first = self.state.origin + step * self.config.global_batch
            raise DroppedStepsError(
                f"{self.state.num_dropped_in_a_row} steps in a row were dropped; the last is step "
                f"{step}, of the samples {first} to {first + self.config.global_batch - 1}, with "
                f"gradient norm {report.result.gradient_norm}",
                f"See what it does with `echojepa replay RUN {step}`; a lower rate, gradient "
                "clipping or other clips may help.",
                "loop.max_dropped_steps",
            )

    def _train_step(self, batch: StepBatch, weight: float) -> StepReport:
        """One optimiser step over the global batch, of which `weight` clips are readable."""
        rates = self._rates(batch.step)
        parts: list[NDArray[np.float64]] = []
        output = Output(torch.empty(0), {})
        for number, micro in enumerate(batch.micro_batches, start=1):
            output = forward(self.engine.forward, self.objective, micro, self.engine.device)
            weights = micro.weights.to(self.engine.device)
            # sum(w l) / sum(w) over the global batch: rows of weight 0 (padding, unreadable clips)
            # count for nothing, and any cut of the batch gives the same gradient.
            part = (output.losses * weights).sum(dim=1) / max(weight, 1.0)
            loss = part.sum() / self.objective.facts.num_terms
            self.engine.backward(loss, last=number == len(batch.micro_batches))
            parts.append(part.detach().double().cpu().numpy())
        if weight > 0:
            result = self.engine.step(rates["lr"], rates["weight_decay"])
        else:
            self.engine.discard()
            result = StepResult(applied=False, gradient_norm=0.0)
        if result.applied and "momentum" in rates:
            self.engine.update_averages(rates["momentum"])
        return StepReport(
            batch=batch,
            result=result,
            losses=collectives.total(np.sum(parts, axis=0)),
            weight=weight,
            output=output,
            rates=rates,
        )

    def _rates(self, step: int) -> dict[str, float]:
        """What the schedules say for a step; a momentum only if something is averaged."""
        schedules = {"lr": self.optimizer.lr, "weight_decay": self.optimizer.weight_decay}
        if self.objective.facts.averages:
            schedules["momentum"] = self.optimizer.momentum
        return {name: s.value(step, self.config.num_steps) for name, s in schedules.items()}


def forward(
    run: Callable[..., Output], objective: Objective, micro: MicroBatch, device: torch.device
) -> Output:
    """One micro-batch through an engine or a module: losses per clip, and features."""
    drawn = objective.draw(_usable(micro.samples), micro.clip_ids)
    on_device = [[tensor.to(device) for tensor in group] for group in drawn]
    return run(micro.pixels.to(device, non_blocking=True), *on_device)


def _usable(samples: NDArray[np.int64]) -> NDArray[np.int64]:
    """Padded rows, which count for nothing, take the index of a real row."""
    return np.where(samples == PADDING, max(int(samples.max()), 0), samples)
