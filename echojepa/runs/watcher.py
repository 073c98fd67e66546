"""Watching a run: scalars and pictures for TensorBoard, metrics and events in the run folder.

Every rank has a watcher and calls it alike, because some numbers are sums over ranks; only rank 0
writes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from echojepa.cost import flops_per_clip
from echojepa.data.problem import ClipProblem
from echojepa.objectives.objective import Objective
from echojepa.pictures.masks import mask_picture, png_of
from echojepa.probes.online import Reading
from echojepa.runs.folder import RunFolder
from echojepa.runs.statistics import NUM_TOKENS, feature_moments, spread_of
from echojepa.train import collectives
from echojepa.train.device import memory_bytes, peak_flops
from echojepa.train.loop import LoopConfig
from echojepa.train.step import StepReport

_NUM_PICTURES = 4

Probe = Callable[[], Reading]
"""Fits something on the frozen encoder and scores it; called on every rank."""


@dataclass(frozen=True)
class Cadence:
    """How often a watcher does what, in steps."""

    log: int
    image: int
    probe: int | None
    last: int
    """The last step is always logged and probed."""

    @classmethod
    def of(cls, config: LoopConfig) -> Cadence:
        """As the config says."""
        return cls(
            config.log_every_steps,
            config.image_every_steps,
            config.probe_every_steps,
            config.last_step,
        )


class RunWatcher:
    """Writes into a run folder; see `train.step.Watcher`."""

    def __init__(
        self,
        folder: RunFolder,
        objective: Objective,
        cadence: Cadence,
        publish: Callable[[dict[str, float]], None],
        probe: Probe | None = None,
        start: int = 0,
    ) -> None:
        """`probe` may be absent; `start` is the step from which this start of the run goes on.

        `publish` hands metrics to the launcher of the run, where a probe was fitted and at the
        end. Not more often: a report to Ray Train waits for its controller, about two seconds.
        """
        self._folder = folder
        self._objective = objective
        self._cadence = cadence
        self._flops_per_clip = flops_per_clip(objective.passes())
        self._publish = publish
        self._probe = probe
        self._rank, self._world_size = collectives.world()
        self._writer: SummaryWriter | None = None
        self._since = time.perf_counter()
        self._clips = self._waited = self._held = 0.0
        self._steps = 0
        if self._rank == 0:
            self._writer = _writer_from(folder, start)

    def after_step(self, report: StepReport) -> dict[str, float] | None:
        """See `Watcher`."""
        done = report.batch.step + 1
        self._clips += report.weight
        self._waited += report.batch.wait_seconds
        self._held += sum(micro.num_held_frames for micro in report.batch.micro_batches)
        self._steps += 1
        if not report.result.applied:
            self._note_dropped(report)
        if self._writer is not None and (done == 1 or done % self._cadence.image == 0):
            self._draw(self._writer, report, done)
        if done % self._cadence.log and done != self._cadence.last and not self._probe_due(done):
            return None
        metrics = self._metrics(report)
        probed = self._probe_due(done)
        if self._probe is not None and probed:
            metrics |= self._judged(done, self._probe())
        self._write(done, metrics)
        if probed or done == self._cadence.last:
            self._publish({"step": done, **metrics})
        self._since, self._steps = time.perf_counter(), 0
        self._clips = self._waited = self._held = 0.0
        return metrics

    def unreadable(self, step: int, problems: Sequence[ClipProblem]) -> None:
        """See `Watcher`."""
        if self._rank == 0:
            self._folder.reject(problems)
            for clip_id, problem in problems:
                self._folder.event("unreadable_clip", step, clip_id=clip_id, problem=str(problem))

    def close(self) -> None:
        """Flush what is buffered."""
        if self._writer is not None:
            self._writer.close()

    def _probe_due(self, done: int) -> bool:
        every = self._cadence.probe
        if self._probe is None or every is None:
            return False
        return done % every == 0 or done == self._cadence.last

    def _judged(self, step: int, reading: Reading) -> dict[str, float]:
        """The probe's scores; an event says why there are none."""
        if reading.problem is not None and self._rank == 0:
            self._folder.event("probe_failed", step, problem=reading.problem)
        return reading.scores

    def _metrics(self, report: StepReport) -> dict[str, float]:
        """Scalars of this step and of the time since the last logged one; a collective call."""
        facts = self._objective.facts
        losses = zip(facts.losses, report.losses.tolist(), strict=True)
        return {
            "loss": float(report.losses.sum()) / facts.num_terms,
            **{f"loss_{name}": value for name, value in losses},
            **report.rates,
            "gradient_norm": report.result.gradient_norm,
            **self._spread(report),
            **self._speed(report),
        }

    def _spread(self, report: StepReport) -> dict[str, float]:
        """How spread out the watched features of the last micro-batch are, on all ranks.

        Rank 0 computes the spectra, and tells the others.
        """
        micro = report.batch.micro_batches[-1]
        per_clip = -(-NUM_TOKENS // (self._world_size * len(micro.samples)))
        found: dict[str, float] = {}
        for name, prefix in self._objective.facts.watched.items():
            features = report.output.features[name]
            weights = micro.weights.to(features.device)
            step = report.batch.step
            moments = feature_moments(features, weights, micro.samples, step, per_clip)
            moments = collectives.total(moments)
            if self._rank == 0:
                statistics = spread_of(moments, features.shape[-1])
                found |= {f"{prefix}{statistic}": value for statistic, value in statistics.items()}
        return collectives.broadcast(found)

    def _speed(self, report: StepReport) -> dict[str, float]:
        """Speed, waiting and memory since the last logged step."""
        elapsed = time.perf_counter() - self._since
        clips_per_second = self._clips / elapsed
        waited, held = collectives.total([self._waited, self._held])
        device = next(iter(report.output.features.values())).device
        metrics = {
            "clips_per_second": clips_per_second,
            "step_seconds": elapsed / self._steps,
            "data_wait_share": float(waited) / self._world_size / elapsed,
            "held_frames_per_clip": float(held) / max(self._clips, 1.0),
            "memory_gb": memory_bytes(device) / 1e9,
            "world_size": float(self._world_size),
        }
        peak = peak_flops(device)
        if peak is not None:
            used = self._flops_per_clip * clips_per_second
            metrics["model_flops_utilisation"] = used / (peak * self._world_size)
        return metrics

    def _write(self, step: int, metrics: dict[str, float]) -> None:
        if self._writer is None:
            return
        self._folder.metrics(step, metrics)
        for name, value in metrics.items():
            if math.isfinite(value):
                self._writer.add_scalar(_tag(name), value, step)
        self._writer.flush()

    def _note_dropped(self, report: StepReport) -> None:
        if self._rank == 0:
            kind = "non_finite_step" if report.weight > 0 else "empty_step"
            norm = str(report.result.gradient_norm)
            self._folder.event(kind, report.batch.step, gradient_norm=norm)

    def _draw(self, writer: SummaryWriter, report: StepReport, done: int) -> None:
        """The first readable clips of the last micro-batch, with their masks, and as redrawn."""
        micro, answers = report.batch.micro_batches[-1], report.output.answers
        within = _NUM_PICTURES if answers is None else len(answers)
        shown = np.flatnonzero(micro.weights.numpy()[:within] > 0)[:_NUM_PICTURES]
        if not len(shown):
            return
        clips, samples, redrawn = micro.pixels[shown], micro.samples[shown], None
        if answers is not None:
            redrawn = self._objective.redrawn(clips, samples, answers[shown].cpu()).numpy()
        hiddens = self._objective.hidden_tokens(samples)
        pictures = [
            mask_picture(
                clip,
                [hidden[i] for hidden in hiddens],
                self._objective.grid,
                None if redrawn is None else redrawn[i],
            )
            for i, clip in enumerate(clips.numpy())
        ]
        tag = "masks" if redrawn is None else "reconstruction"
        writer.add_images(tag, np.stack(pictures), done, dataformats="NHWC")
        if redrawn is not None:
            self._folder.keep_reconstruction(png_of(np.concatenate(pictures, axis=1)))


def _writer_from(folder: RunFolder, start: int) -> SummaryWriter:
    """A writer that hides what an earlier start of the run wrote of later steps: no zigzag.

    TensorBoard reads event files in the order of their names, which begin with the whole second. So
    a start within the second of the last one waits for the next.
    """
    latest = max((file.name for file in folder.tensorboard.glob("events.*")), default="")
    if f".{int(time.time()):010d}." in latest:
        time.sleep(1.0)
    writer = SummaryWriter(str(folder.tensorboard), purge_step=start + 1)
    config = (folder.path / "config.yaml").read_text()
    writer.add_text("config", "    " + config.replace("\n", "\n    "))
    earlier = folder.attempts()[:-1]
    known = earlier[-1].get("rollbacks", 0) if earlier else 0  # an earlier start wrote these
    for number, line in list(enumerate(folder.interventions(), start=1))[known:]:
        writer.add_text("rollbacks", line["reason"], line["step"])
        writer.add_scalar("health/rollbacks", number, line["step"])
    return writer


def _tag(name: str) -> str:
    """TensorBoard groups scalars by what stands before the slash."""
    groups = {
        "loss": "loss",
        "lr": "schedule",
        "weight_decay": "schedule",
        "momentum": "schedule",
        "gradient_norm": "health",
    }
    if "/" in name:
        return name
    if name.endswith(("feature_std", "feature_std_min", "effective_rank")):
        return f"health/{name}"
    group = next((g for prefix, g in groups.items() if name.startswith(prefix)), "speed")
    return f"{group}/{name}"
