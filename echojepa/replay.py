"""One step of a run once more, alone: what its clips are, and where its numbers go wrong.

A step is a pure function of weights, seed and samples, so that any machine that holds the model can
repeat it. Nothing of the run changes but for a picture in `replays/`.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn

from echojepa.errors import CheckpointError, ConfigError
from echojepa.objectives.objective import Objective
from echojepa.pictures.masks import mask_picture
from echojepa.pretrain import PretrainConfig, cut_batch, initial_module
from echojepa.randomness import Seeds
from echojepa.runs.checkpoint import find_damage, step_of
from echojepa.runs.folder import RunFolder
from echojepa.runs.rollback import seeds_of
from echojepa.runs.start import Start, choose_start
from echojepa.train.feed import Feed, MicroBatch, StepBatch
from echojepa.train.loop import forward
from echojepa.train.step import LoopState
from echojepa.train.worker import LocalWorker

_NUM_PICTURES = 8
_BLOCK = re.compile(r"(.*?\.\d+)\.")
"""A numbered block of a network, and what follows."""


class ModuleNorms(NamedTuple):
    """Of one block of the networks."""

    name: str
    weight: float
    """2-norm of its weights."""
    gradient: float
    """2-norm of the step's gradient; 0 for what is not trained."""
    num_not_finite: int
    """Numbers of the gradient that are not finite."""


class ClipLosses(NamedTuple):
    """What became of one sample."""

    sample: int
    """Global sample index s."""
    clip_id: str
    losses: tuple[float, ...]
    """In the order of `Facts.losses`; none if the clip could not be read."""
    problem: str
    """Why it could not."""

    @property
    def badness(self) -> float:
        """To sort by: what is not finite comes first, then the largest loss."""
        return max((x if math.isfinite(x) else math.inf for x in self.losses), default=-math.inf)


class Replay(NamedTuple):
    """A step, repeated."""

    weights: str
    """Whose weights it ran on."""
    gradient_norm: float
    """Before clipping."""
    modules: list[ModuleNorms]
    clips: list[ClipLosses]
    """The worst first."""
    picture: Path
    """Those clips and their masks."""


def replay(config: PretrainConfig, step: int, device: torch.device) -> Replay:
    """Repeat step `step` of the run in `config.run_dir`, in one process.

    It runs on the weights of the newest checkpoint up to it: the very weights of the step, if no
    step in between was applied.

    Raises:
        ConfigError: the run has no such step.
        CheckpointError: all checkpoints that are left are later.
        UserError: as `pretrain`.
    """
    folder = RunFolder(config.run_dir)
    if not 0 <= step < config.loop.num_steps:
        raise ConfigError(
            f"there is no step {step}", f"Steps are 0 to {config.loop.num_steps - 1}."
        )
    start = _weights_for(config, folder, step)
    seeds = seeds_of(folder, config.seed)
    objective = config.build_objective(seeds)
    module = initial_module(config, objective, start)
    module.to(device, getattr(torch, config.optimizer.precision))
    batch = _batch(config, folder, step, seeds)
    clips = [
        line for m in batch.micro_batches for line in _run(module, objective, m, batch, device)
    ]
    clips.sort(key=lambda line: -line.badness)
    modules = _norms(module.named_parameters())
    return Replay(
        weights=start.source.name if start.source else "the beginning",
        gradient_norm=math.sqrt(sum(m.gradient**2 for m in modules)),
        modules=modules,
        clips=clips,
        picture=_picture(folder, step, objective, batch, [c.sample for c in clips]),
    )


def _weights_for(config: PretrainConfig, folder: RunFolder, step: int) -> Start:
    kept = sorted(folder.checkpoints.glob("step_*"), reverse=True)
    for checkpoint in kept:
        if step_of(checkpoint) <= step and find_damage(checkpoint) is None:
            return Start("init", checkpoint, LoopState())
    if kept:
        raise CheckpointError(
            f"the run keeps no checkpoint up to step {step}",
            f"Replay a step from {step_of(kept[-1])} on.",
            str(folder.checkpoints),
        )
    begun = choose_start(folder, config.fork_from, config.init_from, config.seed)
    return begun if begun.source is None else Start("init", begun.source, LoopState())


def _batch(config: PretrainConfig, folder: RunFolder, step: int, seeds: Seeds) -> StepBatch:
    clips = config.data.clips()
    folder.check_manifest(clips.fingerprint)
    shape = cut_batch(config, 1, origin=folder.attempts()[-1]["origin"])
    worker = LocalWorker()
    feed = Feed(
        open_segment=lambda s: worker.open_segment(config.data, seeds, shape, s),
        shape=shape,
        rank=0,
        clips=clips,
        seeds=seeds,
        start=step,
        stop=step + 1,
    )
    return next(iter(feed))


def _run(
    module: nn.Module,
    objective: Objective,
    micro: MicroBatch,
    batch: StepBatch,
    device: torch.device,
) -> list[ClipLosses]:
    """Forward and backward, as the loop does."""
    losses = forward(module, objective, micro, device).losses
    weights = micro.weights.to(device)
    total = (losses * weights).sum() / max(batch.total_weight, 1.0)
    (total / objective.facts.num_terms).backward()
    lines = []
    for i in np.flatnonzero(micro.samples >= 0).tolist():
        problem = micro.problems[i]
        found = () if problem else tuple(losses[:, i].detach().double().cpu().tolist())
        lines.append(
            ClipLosses(int(micro.samples[i]), micro.clip_ids[i], found, str(problem or ""))
        )
    return lines


def _norms(parameters: Iterable[tuple[str, nn.Parameter]]) -> list[ModuleNorms]:
    """Norms by block, in the order of the networks."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0])
    for name, parameter in parameters:
        block = _BLOCK.match(name)
        line = sums[block[1] if block else name.rpartition(".")[0]]
        line[0] += float(parameter.detach().double().square().sum())
        if parameter.grad is not None:
            line[1] += float(parameter.grad.double().square().sum())
            line[2] += int((~torch.isfinite(parameter.grad)).sum())
    return [
        ModuleNorms(name, math.sqrt(weight), math.sqrt(gradient), int(bad))
        for name, (weight, gradient, bad) in sums.items()
    ]


def _picture(
    folder: RunFolder, step: int, objective: Objective, batch: StepBatch, order: Sequence[int]
) -> Path:
    """Draw the worst clips with their masks."""
    rows = {
        int(s): (micro, i) for micro in batch.micro_batches for i, s in enumerate(micro.samples)
    }
    shown = []
    for s in order[:_NUM_PICTURES]:
        micro, i = rows[s]
        hidden = [h[0] for h in objective.hidden_tokens(np.array([s]))]
        shown.append(mask_picture(micro.pixels[i].numpy(), hidden, objective.grid))
    file = folder.path / "replays" / f"step_{step:08d}.png"
    file.parent.mkdir(exist_ok=True)
    Image.fromarray(np.concatenate(shown)).save(file)
    return file
