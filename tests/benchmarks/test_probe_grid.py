"""A grid of 12 attentive probes against the published way of training it, in the same process.

pytest -m soak tests/benchmarks/test_probe_grid.py -s

Published: the frozen encoder runs again in every epoch, and every head norms, projects and steps by
itself. Ours: the encoder runs once, its tokens are kept in a file, and all heads are one module.
Same encoder, clips, heads and batches, on one thread each.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.grids import EF, Alone, labels
from torch.nn import functional as F

from echojepa.models.encoder import EncoderConfig, VideoEncoder, normalise
from echojepa.probes.grid.config import GridConfig
from echojepa.probes.grid.fit import Training, fit_grid
from echojepa.probes.grid.samples import ArraySamples, in_batches
from echojepa.probes.tasks import Labels
from echojepa.randomness import Permutation

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]
VIT_SMALL = EncoderConfig(width=384, depth=12, num_heads=6)
SIZE, FRAMES, TOKENS = 112, 16, 392
TRAIN, VAL = 48, 16
GRID = GridConfig()
BAR = 10.0


class Clock(NamedTuple):
    """Seconds on the wall, and of the processor, which other processes disturb less."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Clock:
        return cls(time.perf_counter(), time.process_time())

    def since(self) -> Clock:
        now = Clock.now()
        return Clock(now.wall - self.wall, now.cpu - self.cpu)

    def __str__(self) -> str:
        return f"{self.wall:.1f} s ({self.cpu:.1f} s of processor)"


def random_clips() -> NDArray[np.uint8]:
    shape = (TRAIN + VAL, FRAMES, SIZE, SIZE, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@torch.inference_mode()
def encode(encoder: VideoEncoder, clips: NDArray[np.uint8]) -> torch.Tensor:
    return encoder(normalise(torch.from_numpy(clips), torch.float32))


def our_way(
    encoder: VideoEncoder, clips: NDArray[np.uint8], known: Labels, file: Path
) -> tuple[Clock, Clock]:
    """What features take, and the whole fit from their file."""
    began = Clock.now()
    shape = (len(clips), 1, TOKENS, VIT_SMALL.width)
    tokens = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
    for rows in in_batches(np.arange(len(clips)), GRID.batch):
        tokens[rows, 0] = encode(encoder, clips[rows])
    tokens.flush()
    encoded = began.since()
    began = Clock.now()
    fit = fit_grid(GRID, ArraySamples(np.load(file, mmap_mode="r")), known)
    trained = began.since()
    assert [len(row.val) for row in fit.table] == [GRID.epochs] * 12
    return encoded, trained


def published_epoch(
    encoder: VideoEncoder, clips: NDArray[np.uint8], alone: list[Alone], truth: torch.Tensor
) -> Clock:
    """What one epoch takes: every head steps on every batch, and is judged on val."""
    optimisers = [
        torch.optim.AdamW(
            head.module.parameters(), lr=head.settings.lr, weight_decay=head.settings.weight_decay
        )
        for head in alone
    ]
    present = torch.ones(GRID.batch, 1, dtype=torch.bool)
    began = Clock.now()
    for rows in in_batches(Permutation(TRAIN, 0, 0)(np.arange(TRAIN)), GRID.batch):
        tokens = encode(encoder, clips[rows]).clone()[:, None]
        for head, optimiser in zip(alone, optimisers, strict=True):
            optimiser.zero_grad()
            said = head.module(tokens, present[: len(rows)])[:, 0]
            F.smooth_l1_loss(said, truth[rows]).backward()
            optimiser.step()
    errors = torch.zeros(len(alone))
    for rows in in_batches(np.arange(TRAIN, TRAIN + VAL), GRID.batch):
        tokens = encode(encoder, clips[rows]).clone()[:, None]
        with torch.no_grad():
            for number, head in enumerate(alone):
                said = head.module(tokens, present[: len(rows)])[:, 0]
                errors[number] += (said - truth[rows]).abs().sum()
    return began.since()


def test_a_grid_is_ten_times_faster_than_the_published_way(tmp_path: Path) -> None:
    encoder = VideoEncoder(VIT_SMALL).eval().requires_grad_(False)
    clips = random_clips()
    values = np.random.default_rng(1).normal(55, 10, len(clips))
    known = labels(values, np.repeat(["train", "val"], [TRAIN, VAL]), EF)
    encode(encoder, clips[:8])
    features, fit = our_way(encoder, clips, known, tmp_path / "tokens.npy")
    shown = ArraySamples(np.load(tmp_path / "tokens.npy", mmap_mode="r"))
    start = Training(GRID, shown, known)
    alone = [Alone(GRID, head, start, VIT_SMALL.width, (1, 1)) for head in range(len(GRID.heads))]
    truth = torch.from_numpy((values - values[:TRAIN].mean()) / values[:TRAIN].std()).float()
    epoch = published_epoch(encoder, clips, alone, truth)
    wall, cpu = (
        GRID.epochs * theirs / (once + ours)
        for theirs, once, ours in zip(epoch, features, fit, strict=True)
    )
    print(
        f"\n{TRAIN} + {VAL} clips, {len(alone)} heads, {GRID.epochs} epochs, "
        f"{torch.get_num_threads()} thread\n"
        f"published: one epoch {epoch}, measured once and multiplied by {GRID.epochs}\n"
        f"ours: features {features}, all {GRID.epochs} epochs {fit}\n"
        f"{wall:.1f} times faster; {cpu:.1f} times less processor time"
    )
    assert wall >= BAR
