"""Train all heads of a grid on the same batches, judge them on val, and keep the best.

    fit = fit_grid(GridConfig(), samples, labels)
    numbers = fit.predict(samples, np.flatnonzero(labels.splits == "test"))

Initial values, order of samples and dropout depend on the seed alone, not on the grid: up to
rounding, every head is the one that a grid of one would have given. The test split is not read.

Shapes: n samples, G heads, B samples of a batch, V views, S slots.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from echojepa.errors import ConfigError, ManifestError
from echojepa.probes.grid.config import GridConfig
from echojepa.probes.grid.fitted import FitRecord, GridFit, HeadRecord, choose, device
from echojepa.probes.grid.heads import Design, build_heads, outputs_of
from echojepa.probes.grid.optimiser import GridAdamW, lr_factor
from echojepa.probes.grid.samples import Batch, Samples, SampleShape, pool_slots, read_batch
from echojepa.probes.grid.target import Target, losses
from echojepa.probes.metrics import HEADLINE, goodness
from echojepa.probes.predictions import predictions_of
from echojepa.probes.tasks import Labels
from echojepa.randomness import Permutation


def fit_grid(config: GridConfig, samples: Samples, labels: Labels) -> GridFit:
    """Train on train, choose head and epoch on val (see `choose`).

    Args:
        labels: of every sample, in the same order. Their weights enter the loss and the scaler; val
            is judged by studies, where the task judges studies.

    Raises:
        ConfigError: attention heads do not divide the width, or every head diverged.
        ManifestError: train or val has no samples, or the training labels are all the same.
        BadDataError: a sample has no clip that is present, or features that are not finite.
        ValueError: there are not as many labels as samples.
    """
    if samples.num_samples != len(labels.values):
        raise ValueError(f"{len(labels.values)} labels of {samples.num_samples} samples")
    if config.head == "attentive" and samples.width % config.num_heads:
        raise ConfigError(
            f"{config.num_heads} attention heads do not divide the width {samples.width}",
            "Choose a number that does.",
            "num_heads",
        )
    training = Training(config, samples, labels)
    for epoch in range(config.epochs):
        training.train(epoch)
        training.judge()
        if training.is_over:
            break
    return training.result()


class Training:
    """The heads of a grid on their way."""

    def __init__(self, config: GridConfig, samples: Samples, labels: Labels) -> None:
        """Begin. Arguments and errors are those of `fit_grid`."""
        self._config, self._samples, self._labels = config, samples, labels
        self._shape = SampleShape.of(samples)
        train, val = (np.flatnonzero(labels.splits == split) for split in ("train", "val"))
        for split, rows in (("train", train), ("val", val)):
            if not len(rows):
                raise ManifestError(f"split {split!r} has no samples", "Split the manifest again.")
        values, weights = labels.values[train], labels.weights()[train]
        self._target = Target.of(labels.task.kind, values, weights)
        counted = self._target.sample_weights(values, weights, by_class=config.class_weights)
        if config.head != "attentive":  # they see no more of a slot than its mean: read once
            rows = np.concatenate([train, val])
            self._samples = pool_slots(samples, rows, config.batch, config.dtype)
            train, val = np.arange(len(train)), np.arange(len(train), len(train) + len(val))
        self._train, self._val = train, val
        self._settings = config.heads
        self.heads = build_heads(config, Design(len(self._settings), self._shape, self._target))
        self.heads.to(device())
        self._truth = self._on_device(self._target.encode(values))
        self._weights = self._on_device(torch.from_numpy(counted))
        self._optimiser = GridAdamW(self.heads, [s.weight_decay for s in self._settings])
        self._scores: list[list[float]] = [[] for _ in self._settings]
        self._diverged = np.zeros(len(self._settings), bool)
        self._best = {name: t.clone() for name, t in self.heads.state_dict().items()}
        self._stale_epochs = 0

    def _on_device(self, values: torch.Tensor) -> torch.Tensor:
        dtype = self._config.dtype if values.is_floating_point() else values.dtype
        return values.to(device(), dtype)

    def train(self, epoch: int) -> None:
        """One pass over the training samples."""
        self.heads.train()
        num_batches = -(-len(self._train) // self._config.batch)
        num_steps = self._config.epochs * num_batches
        batches = self._batches(epoch, num_batches)
        for step, (batch, rows) in enumerate(batches, start=epoch * num_batches):
            each = losses(self.heads(batch), self._truth[rows], focal=self._config.loss == "focal")
            of_head = (each * self._weights[rows]).mean(dim=1)
            of_head.sum().backward()  # every head's own loss: no gradient of one reaches another
            self._optimiser.step(
                [
                    head.lr * lr_factor(step, head.warmup_epochs * num_batches, num_steps)
                    for head in self._settings
                ]
            )

    def _batches(self, epoch: int, number: int) -> Iterator[tuple[Batch, torch.Tensor]]:
        """Training samples in an order of seed and epoch, with their rows among them, [B]."""
        total = len(self._train)
        order = Permutation(total, self._config.seed, epoch)(np.arange(total))
        chance = np.random.default_rng([self._config.seed, epoch])
        draws = chance.random((total, len(self._shape.views)))
        for rows in np.array_split(order, number):
            batch = read_batch(self._samples, self._train[rows])
            if self._config.view_dropout:
                kept = keep_views(batch.present, draws[rows], self._config.view_dropout)
                batch = Batch(batch.tokens, kept)
            yield batch, torch.from_numpy(rows)

    def judge(self) -> None:
        """Score every head on val; keep the weights of those that are better than ever."""
        self.heads.eval()
        said = list(outputs_of(self.heads, self._samples, self._val, self._config.batch))
        outputs = torch.cat(said, dim=1)
        self._diverged |= ~outputs.isfinite().all(dim=(1, 2)).cpu().numpy()
        task, classes = self._labels.task, np.array(self._target.classes, str)
        decoded, is_val = self._target.decode(outputs), self._labels.splits == "val"
        self._stale_epochs += 1
        for head in np.flatnonzero(~self._diverged):
            found = predictions_of(self._labels, is_val, decoded[head], classes).metrics()
            score, scores = found[HEADLINE[task.kind]], self._scores[head]
            scores.append(score)
            if all(goodness(task.kind, score) > goodness(task.kind, s) for s in scores[:-1]):
                self._stale_epochs = 0
                for name, tensor in self.heads.state_dict().items():
                    self._best[name][head] = tensor[head]

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to wait for: all heads diverged, or none improves."""
        patience = self._config.patience
        return bool(self._diverged.all()) or (
            patience is not None and self._stale_epochs >= patience
        )

    def result(self) -> GridFit:
        """The chosen head, with its weights of the chosen epoch."""
        table = tuple(
            HeadRecord(**settings._asdict(), val=tuple(scores), diverged=bool(diverged))
            for settings, scores, diverged in zip(
                self._settings, self._scores, self._diverged, strict=True
            )
        )
        record = FitRecord(
            config=self._config,
            shape=self._shape,
            target=self._target,
            table=table,
            chosen=choose(self._target.kind, table),
        )
        heads = build_heads(self._config, Design(1, self._shape, self._target))
        chosen = record.chosen.head
        heads.load_state_dict({name: t[chosen : chosen + 1] for name, t in self._best.items()})
        return GridFit(record, heads)


def keep_views(
    present: torch.Tensor, draws: NDArray[np.float64], probability: float
) -> torch.Tensor:
    """Leave out present views at random, never the last one.

    Args:
        present: slots, [B, S].
        draws: one uniform number per sample and view, [B, V]; below `probability` a view is left
            out, but the one with the largest number stays.

    Returns:
        [B, S]
    """
    there = present.unflatten(1, (draws.shape[1], -1))  # [B, V, C]
    numbers = torch.from_numpy(draws).masked_fill(~there.any(dim=2), -1.0)
    kept = (numbers >= probability) | (numbers == numbers.amax(dim=1, keepdim=True))
    out: torch.Tensor = (there & kept[..., None]).flatten(1)
    return out
