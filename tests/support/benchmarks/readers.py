"""Supervised readers of clips: plain convolutional networks, trained from scratch on labels.

They say what a data set gives away: to one that sees a whole clip, or one single frame.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Shown:
    """What a reader sees: clips uint8 [N, T, H, W], and what it is asked, [N]."""

    clips: np.ndarray
    answers: np.ndarray

    def of(self, rows: np.ndarray) -> Shown:
        """Some of it."""
        return Shown(self.clips[rows], self.answers[rows])


class Reader(nn.Module):
    """Factorised (2+1)D convolutions (Tran et al., CVPR 2018), then a mean and a linear layer.

    A clip of one frame makes it a plain image network.
    """

    def __init__(self, num_answers: int, width: int = 16) -> None:
        super().__init__()
        widths = [1, width, 2 * width, 4 * width, 6 * width]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [
                nn.Conv3d(before, after, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False),
                nn.BatchNorm3d(after),
                nn.ReLU(),
                nn.Conv3d(after, after, (3, 1, 1), (1, 1, 1), (1, 0, 0), bias=False),
                nn.BatchNorm3d(after),
                nn.ReLU(),
            ]
        self.body = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(2 * widths[-1], num_answers))

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """float [B, T, H, W] to [B, num_answers]."""
        seen = self.body(clips[:, None])  # [B, C, T, H, W]
        pooled = seen.mean(dim=(3, 4))
        # Mean and spread over time: how far something moves is in the spread.
        spread = pooled.std(dim=2, unbiased=False)
        return self.head(torch.cat([pooled.mean(dim=2), spread], dim=1))


def train_reader(train: Shown, num_classes: int | None, num_epochs: int, seed: int = 0) -> Reader:
    """Train on labels; `num_classes` is none for a regression (answers of mean 0, deviation 1)."""
    torch.manual_seed(seed)
    reader = Reader(num_classes or 1)
    batch = min(32, max(len(train.clips) // 4, 4))
    steps = num_epochs * max(len(train.clips) // batch, 1)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    rng = np.random.default_rng(seed)
    reader.train()
    for step in range(steps):
        if step % max(len(train.clips) // batch, 1) == 0:
            order = rng.permutation(len(train.clips))
        at = step % max(len(train.clips) // batch, 1)
        rows = order[at * batch : (at + 1) * batch]
        clips = augmented(to_floats(train.clips[rows]), rng)
        answers = torch.from_numpy(train.answers[rows])
        said = reader(clips)
        loss = (
            F.cross_entropy(said, answers, label_smoothing=0.05)
            if num_classes
            else F.smooth_l1_loss(said[:, 0], answers.float())
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return reader


@torch.no_grad()
def read(reader: Reader, clips: np.ndarray) -> np.ndarray:
    """Answers of a reader [N, num_answers] about clips uint8 [N, T, H, W]."""
    reader.eval()
    return torch.cat(
        [reader(to_floats(clips[i : i + 64])) for i in range(0, len(clips), 64)]
    ).numpy()


def to_floats(clips: np.ndarray) -> torch.Tensor:
    """uint8 to floats around 0."""
    return torch.from_numpy(clips).float() / 64.0 - 0.6


def augmented(clips: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Shifted by up to a twelfth of the frame, brighter or darker; never mirrored."""
    size = clips.shape[-1]
    pad = size // 12
    padded = F.pad(clips, (pad, pad, pad, pad), value=-0.6)
    y, x = rng.integers(0, 2 * pad + 1, 2)
    gain = torch.from_numpy(rng.uniform(0.8, 1.25, (len(clips), 1, 1, 1)).astype(np.float32))
    return (padded[..., y : y + size, x : x + size] + 0.6) * gain - 0.6
