"""THE TRAINING LOOP. One optimiser step after the other, from data to checkpoint.

    for every batch of the stream:
        predict hidden features, average the loss over the readable clips of all ranks
        step (or drop the step, if a gradient is not finite), move the EMA target
        record which samples were trained on, log, and now and then save

It knows neither Ray nor DeepSpeed: data come from a `Feed`, the model is behind an `Engine`, and
what happens around a step is a `Watcher`'s business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from echojepa.data.stream import PADDING
from echojepa.errors import BadDataError
from echojepa.objectives.masks import MaskSampler
from echojepa.runs.watcher import StepReport, Watcher
from echojepa.train import collectives
from echojepa.train.engine import Engine, OptimizerConfig, StepResult
from echojepa.train.feed import MicroBatch, StepBatch
from echojepa.train.record import SampleRecord
from echojepa.train.run_config import LoopConfig, LoopState
from echojepa.train.worker import Worker

_BAD_FRACTION_WINDOW = 1000
"""The share of unreadable clips is judged over at least this many, or one would end a run."""


@dataclass
class Loop:
    """Everything one run of the loop needs."""

    engine: Engine
    masks: MaskSampler
    config: LoopConfig
    optimizer: OptimizerConfig
    max_bad_fraction: float
    state: LoopState
    record: SampleRecord
    watcher: Watcher
    save: Callable[[LoopState], None]
    """Writes a checkpoint; called on every rank."""
    judge: Callable[[int, dict[str, float]], None]
    """Sees the metrics of every logged step, on every rank; raises to end the run."""
    worker: Worker
    """May ask for a checkpoint between two of the regular ones."""
    _requested: bool = field(default=False, init=False)

    def run(self, feed: Iterable[StepBatch]) -> dict[str, float]:
        """Train until the feed ends; returns the last metrics.

        Raises:
            BadDataError: more than `max_bad_fraction` of the samples could not be read.
        """
        metrics: dict[str, float] = {}
        saved = self.state.step
        self.worker.beat()
        for batch in feed:
            report = self._train_step(batch)
            self.record.append(batch, applied=report.result.applied)
            self.state.step = batch.step + 1
            self.state.num_applied += report.result.applied
            logged = self.watcher.after_step(report)
            if logged is not None:
                metrics = logged
                self.judge(self.state.step, logged)
            if self._requested or self.state.step % self.config.checkpoint_every_steps == 0:
                self.save(self.state)
                saved = self.state.step
            if self._requested and self.state.step < self.config.last_step:
                self.worker.save_done()
            self.worker.beat()
        if saved != self.state.step:
            self.save(self.state)
        self.worker.finished()
        return metrics

    def _train_step(self, batch: StepBatch) -> StepReport:
        """One optimiser step over the global batch."""
        began = time.perf_counter()
        step = batch.step
        lr = self.optimizer.lr.value(step, self.config.num_steps)
        weight_decay = self.optimizer.weight_decay.value(step, self.config.num_steps)
        momentum = self.optimizer.momentum.value(step, self.config.num_steps)
        weight = self._count(batch)
        parts, features = [], (torch.empty(0), torch.empty(0))
        for number, micro in enumerate(batch.micro_batches, start=1):
            part, features = self._forward(micro, weight)
            loss = part.sum() / len(self.masks.config.generators)
            self.engine.backward(loss, last=number == len(batch.micro_batches))
            parts.append(part.detach().double().cpu().numpy())
        if weight > 0:
            result = self.engine.step(lr, weight_decay)
        else:
            self.engine.discard()
            result = StepResult(applied=False, gradient_norm=0.0)
        if result.applied:
            self.engine.update_target(momentum)
        return StepReport(
            batch=batch,
            result=result,
            losses=collectives.total(np.sum(parts, axis=0)),
            weight=weight,
            target_features=features[0],
            online_features=features[1],
            rates={"lr": lr, "weight_decay": weight_decay, "momentum": momentum},
            seconds=time.perf_counter() - began,
        )

    def _forward(
        self, micro: MicroBatch, weight: float
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """This micro-batch's part of the objective's losses, [G or 2 G], and its features."""
        device = self.engine.device
        contexts, hiddens = token_masks(self.masks, micro.samples, device)
        pixels = micro.pixels.to(device, non_blocking=True)
        losses, *features = self.engine.forward(pixels, contexts, hiddens)
        weights = micro.weights.to(device)
        return (losses * weights).sum(dim=1) / max(weight, 1.0), (features[0], features[1])

    def _count(self, batch: StepBatch) -> float:
        """Weight of the global batch; also counts samples and reports unreadable ones.

        The wish for a checkpoint travels along: every rank must learn of it at the same step.
        """
        real = sum(int((m.samples != PADDING).sum()) for m in batch.micro_batches)
        problems = [
            (clip_id, problem)
            for m in batch.micro_batches
            for clip_id, problem in zip(m.clip_ids, m.problems, strict=True)
            if problem
        ]
        counts = [batch.total_weight, real, len(problems), self.worker.save_requested()]
        weight, seen, unread, requests = collectives.total(counts)
        self._requested = requests > 0
        self.state.num_seen += int(seen)
        self.state.num_unread += int(unread)
        if unread:
            everywhere = [p for part in collectives.gather(problems) for p in part]
            self.watcher.unreadable(batch.step, everywhere)
            allowed = self.max_bad_fraction * max(self.state.num_seen, _BAD_FRACTION_WINDOW)
            if self.state.num_unread > allowed:
                raise BadDataError(
                    f"{self.state.num_unread} of {self.state.num_seen} samples could not be read, "
                    f"more than max_bad_fraction = {self.max_bad_fraction} allows",
                    "See rejected.parquet in the run folder, then mend the clips or raise "
                    "data.max_bad_fraction.",
                    "data",
                )
        return float(weight)


def token_masks(
    masks: MaskSampler, samples: NDArray[np.int64], device: torch.device
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Context and hidden token indices per generator; padded rows borrow a real row's mask."""
    usable = np.where(samples == PADDING, max(int(samples.max()), 0), samples)
    drawn = masks(usable)
    return (
        [torch.from_numpy(mask.context).to(device) for mask in drawn],
        [torch.from_numpy(mask.hidden).to(device) for mask in drawn],
    )
