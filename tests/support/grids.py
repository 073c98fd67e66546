"""Samples and labels for grids of probe heads; one head of a grid trained alone by plain torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from support.plain_heads import Plain, PlainAttentive, PlainMean
from torch.nn import functional as F

from echojepa.probes.grid.config import GridConfig, HeadSettings
from echojepa.probes.grid.fit import Training
from echojepa.probes.grid.samples import ArraySamples
from echojepa.probes.tasks import Labels, Task
from echojepa.randomness import Permutation

EF = Task(name="ef", label="lvef", kind="regression", unit="%")
VIEW = Task(name="view", label="view", kind="classification")
WIDTH, TOKENS = 16, 6
VIEWS = ("A4C", "PSAX-AV")


def samples(
    numbers: tuple[int, int, int] = (41, 20, 20), slots: tuple[int, int] = (1, 1), seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.str_]]:
    """Tokens [n, S, N, D], presence [n, S], splits [n]; without presence for a single slot."""
    rng = np.random.default_rng(seed)
    number = sum(numbers)
    tokens = rng.normal(0.5, 2, (number, slots[0] * slots[1], TOKENS, WIDTH)).astype(np.float32)
    present = rng.random(tokens.shape[:2]) < 0.7
    present[~present.any(axis=1), 0] = True
    return tokens, present, np.repeat(["train", "val", "test"], numbers)


def arranged(
    tokens: NDArray[np.float32], present: NDArray[np.bool_], slots: tuple[int, int] = (1, 1)
) -> ArraySamples:
    return ArraySamples(tokens, present, VIEWS if slots[0] == 2 else ("",))


def labels(
    values: NDArray[Any],
    splits: NDArray[np.str_],
    task: Task = EF,
    studies: NDArray[np.str_] | None = None,
) -> Labels:
    """Every sample a study and a patient of its own, unless studies are named."""
    ids = [f"sample{i:04d}" for i in range(len(values))]
    of = np.array(ids) if studies is None else studies
    return Labels(task, ids, of, of, splits, values)


def fractions(tokens: NDArray[np.float32], present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Ejection fractions that depend on the mean of what is there."""
    keep = present[..., None, None] * np.ones_like(tokens)
    mean = (tokens * keep).sum(axis=(1, 2)) / keep.sum(axis=(1, 2))
    noise = np.random.default_rng(9).normal(size=len(mean))
    return np.asarray(55 + mean @ np.linspace(-6, 6, WIDTH) + noise, np.float64)


class Alone:
    """One head of a grid, trained by itself on the tensors of the training samples."""

    def __init__(
        self, config: GridConfig, head: int, start: Training, width: int, slots: tuple[int, int]
    ) -> None:
        state = {name: t[head].detach().clone() for name, t in start.heads.state_dict().items()}
        outputs = len(state["linear.bias" if "linear.bias" in state else "fc2.bias"])
        made: Plain
        if config.head == "attentive":
            made = PlainAttentive(width, outputs, config.num_heads, config.depth, slots)
        else:
            made = PlainMean(width, outputs, slots, hidden=config.head == "mlp")
        self.module = made.to(config.dtype)
        self.module.load_state_dict(state, strict=True)
        self.config = config
        self.settings: HeadSettings = config.heads[head]

    def fit(
        self, tokens: torch.Tensor, present: torch.Tensor, truth: torch.Tensor, w: torch.Tensor
    ) -> None:
        """The published loop; mean-weighted losses `w`, targets z-scored or class indices."""
        config, number = self.config, len(tokens)
        batches = -(-number // config.batch)
        warmup, total = self.settings.warmup_epochs * batches, config.epochs * batches
        optimiser = torch.optim.AdamW(
            self.module.parameters(), lr=self.settings.lr, weight_decay=self.settings.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser,
            lambda step: (
                (step + 1) / warmup
                if step + 1 < warmup
                else 0.5 * (1 + np.cos(np.pi * (step + 1 - warmup) / (total - warmup)))
            ),
        )
        dropout = torch.Generator().manual_seed(config.seed)
        for epoch in range(config.epochs):
            order = Permutation(number, config.seed, epoch)(np.arange(number))
            for rows in np.array_split(order, batches):
                extra = []
                if config.head == "mlp":
                    drawn = torch.rand(len(rows), WIDTH, generator=dropout)
                    extra = [(drawn >= 0.1).to(config.dtype)]
                said = self.module(tokens[rows], present[rows], *extra)
                loss = (w[rows] * self._loss(said, truth[rows])).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()

    def _loss(self, said: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        if truth.is_floating_point():
            return F.smooth_l1_loss(said[:, 0], truth, reduction="none")
        entropy = F.cross_entropy(said, truth, reduction="none")
        if self.config.loss == "plain":
            return entropy
        return (1 - said.softmax(dim=-1)[torch.arange(len(truth)), truth]) ** 2 * entropy
