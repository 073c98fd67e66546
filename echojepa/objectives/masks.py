"""Which tokens the encoder sees and which it must predict: whole tubes, keyed by (seed, s).

Each generator draws blocks of grid cells, full depth in time; their union is hidden. The reference
then truncates every sample of a micro-batch to the smallest count, in time order, so that its law
depends on the batch per GPU and favours early frames. Here every sample hides exactly the same
number of cells (see `mask_geometry.adjust`). `truncate_group` brings the reference's law back, for
groups of samples that any worker can recompute.

Shapes: B samples, K kept tokens, M hidden tokens, R x C grid; masks are True where hidden.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from echojepa.config import Strict
from echojepa.data.stream import StreamShape
from echojepa.errors import ConfigError
from echojepa.models.attention import Grid
from echojepa.objectives.mask_geometry import (
    BlockDraw,
    Blocks,
    Floats,
    Masks,
    adjust,
    calibrate,
    draw_blocks,
    num_uniforms,
)
from echojepa.randomness import Domain, SampleRng, Seeds

_NUM_TRIAL_DRAWS = 1500
_TRIAL_SEED = 0
"""Counts belong to the blocks and the grid, never to a run's seed."""
_MAX_REDRAWS = 100
_MAX_EMPTY_FRACTION = 0.05
"""The published blocks leave no context in 1.4% of draws at 14 x 14, and in a third at 4 x 4."""


class BlockMaskConfig(Strict):
    """One mask generator. The published pair is 8 blocks of 0.15 and 2 blocks of 0.7."""

    num_blocks: int = Field(gt=0)
    """Blocks whose union is hidden."""
    spatial_scale: float = Field(gt=0, lt=1)
    """Area of a block as a share of the grid."""
    aspect: tuple[float, float] = (0.75, 1.5)
    """Height over width of the blocks, one draw per sample."""
    context_fraction: float | None = Field(None, gt=0, lt=1)
    """Share of the grid left visible, exactly; null takes the mean of the drawn blocks."""


class MaskConfig(Strict):
    """The generators; the loss is their mean."""

    generators: tuple[BlockMaskConfig, ...] = (
        BlockMaskConfig(num_blocks=8, spatial_scale=0.15),
        BlockMaskConfig(num_blocks=2, spatial_scale=0.7),
    )
    """Every generator hides other tokens of every clip."""
    truncate_group: int | None = Field(None, gt=0)
    """Reproduce the reference's truncation over samples [group k, group (k + 1)); null is exact."""

    def check_shape(self, shape: StreamShape) -> None:
        """Only `truncate_group` restricts how batches are cut; raises `ConfigError`."""
        group = self.truncate_group
        sides = (shape.global_batch, shape.origin)
        if group and (group % shape.micro_batch or any(side % group for side in sides)):
            raise ConfigError(
                f"truncate_group {group} does not fit a micro-batch of {shape.micro_batch} and a "
                f"global batch of {shape.global_batch}",
                "Choose optimizer.max_micro_batch so that micro-batches divide the group, and the "
                "group divides the global batch.",
                "objective.masks.truncate_group",
            )

    def describe(self) -> str:
        """In words."""
        return "; ".join(f"{g.num_blocks} blocks of {g.spatial_scale}" for g in self.generators)

    @model_validator(mode="after")
    def _consistent(self) -> MaskConfig:
        if not self.generators:
            raise ValueError("at least one mask generator is needed")
        fixed = [g for g in self.generators if g.context_fraction is not None]
        if self.truncate_group and fixed:
            raise ValueError("truncate_group decides the counts; context_fraction must be null")
        return self


class TokenMask(NamedTuple):
    """Token indices of one generator for a batch, in the order time, row, column."""

    context: NDArray[np.int64]
    """Visible to the encoder, [B, K]."""
    hidden: NDArray[np.int64]
    """To be predicted, [B, M]."""


class MaskSampler:
    """Masks of any samples, as a pure function of (seed, s)."""

    def __init__(self, config: MaskConfig, grid: Grid, seeds: Seeds) -> None:
        """Check the config against the grid.

        Raises:
            ConfigError: blocks that leave no context in over 5% of draws, or a context fraction
                that rounds to no visible or no hidden cell.
        """
        self.config = config
        self.grid = grid
        self.seeds = seeds
        self._blocks = [Blocks(g.num_blocks, g.spatial_scale, g.aspect) for g in config.generators]
        self.num_hidden: list[int] = []
        """Hidden cells per time step, per generator (with truncation: the mean before it)."""
        self._tilt: list[Floats] = []
        for index, blocks in enumerate(self._blocks):
            trials = draw_blocks(blocks, grid, _trial_uniforms(num_uniforms(blocks, grid)))
            self.num_hidden.append(_count_hidden(trials, config.generators[index], index))
            self._tilt.append(calibrate(trials, self.num_hidden[-1]))
        self._group = lru_cache(maxsize=64)(self._truncated_group)

    @property
    def num_hidden_tokens(self) -> list[int]:
        """Hidden tokens of a clip, per generator (with truncation: the mean before it)."""
        return [cells * self.grid.frames for cells in self.num_hidden]

    def __call__(self, samples: NDArray[np.int64]) -> list[TokenMask]:
        """One mask per generator for global sample indices [B].

        Raises:
            ConfigError: with `truncate_group`, a batch that lies in more than one group.
        """
        group = self.config.truncate_group
        indices = range(len(self.config.generators))
        if group:
            return [self._truncated(index, samples, group) for index in indices]
        return [self._exact(index, samples) for index in indices]

    def free_masks(self, index: int, samples: NDArray[np.int64]) -> Masks:
        """The unions of blocks as drawn, before any adjustment, [B, R, C]."""
        return draw_blocks(self._blocks[index], self.grid, self._uniforms(index, samples)).union

    def exact_masks(self, index: int, samples: NDArray[np.int64]) -> Masks:
        """The masks in use, each with `num_hidden[index]` hidden cells, [B, R, C]."""
        drawn = draw_blocks(self._blocks[index], self.grid, self._uniforms(index, samples))
        return adjust(drawn, self.num_hidden[index], self._tilt[index])

    def _exact(self, index: int, samples: NDArray[np.int64]) -> TokenMask:
        masks = self.exact_masks(index, samples)
        return TokenMask(
            np.stack([self._tokens(~mask) for mask in masks]),
            np.stack([self._tokens(mask) for mask in masks]),
        )

    def _uniforms(self, index: int, samples: NDArray[np.int64], redraw: int = 0) -> Floats:
        """Uniforms of every sample's `redraw`-th draw, [B, num_uniforms]."""
        number = num_uniforms(self._blocks[index], self.grid)
        raw = []
        for s in samples.tolist():
            rng = SampleRng(self.seeds.at(s), Domain.MASK, s * len(self._blocks) + index)
            raw.append(rng.raw(number * (redraw + 1))[-number:])
        return _to_uniforms(np.stack(raw))

    def _tokens(self, cells: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Indices of the tokens of all time steps in the cells that are True."""
        within = np.flatnonzero(cells)
        return (np.arange(self.grid.frames)[:, None] * self.grid.num_cells + within).reshape(-1)

    def _truncated(self, index: int, samples: NDArray[np.int64], group: int) -> TokenMask:
        groups = np.unique(samples // group)
        if len(groups) > 1:
            raise ConfigError(
                f"a micro-batch of {len(samples)} straddles groups of {group} samples",
                "Let the micro-batch divide truncate_group, and truncate_group the global batch.",
                "objective.masks.truncate_group",
            )
        context, hidden = self._group(index, int(groups[0]))
        inside = samples % group
        return TokenMask(context[inside], hidden[inside])

    def _truncated_group(self, index: int, group: int) -> TokenMask:
        """All samples of a group, cut to the smallest count in time order, as the reference does.

        There one block size serves the whole batch, and a mask without context is drawn again.
        """
        size = self.config.truncate_group or 1
        samples = np.arange(group * size, (group + 1) * size)
        size_uniform = self._uniforms(index, samples[:1])[0, 0]
        masks = np.ones((size, self.grid.rows, self.grid.columns), bool)
        for redraw in range(_MAX_REDRAWS):
            full = np.flatnonzero(masks.all(axis=(1, 2)))
            if not len(full):
                break
            uniforms = self._uniforms(index, samples[full], redraw)
            uniforms[:, 0] = size_uniform
            masks[full] = draw_blocks(self._blocks[index], self.grid, uniforms).union
        else:
            raise ConfigError(
                f"group {group} has a block size that leaves no context, wherever the blocks lie",
                "Use smaller or fewer blocks.",
                f"objective.masks.generators.{index}",
            )
        context = [self._tokens(~mask) for mask in masks]
        hidden = [self._tokens(mask) for mask in masks]
        num_context, num_hidden = min(map(len, context)), min(map(len, hidden))
        return TokenMask(
            np.stack([tokens[:num_context] for tokens in context]),
            np.stack([tokens[:num_hidden] for tokens in hidden]),
        )


def _trial_uniforms(number: int) -> Floats:
    raw = SampleRng(_TRIAL_SEED, Domain.MASK, 0).raw(_NUM_TRIAL_DRAWS * number)
    return _to_uniforms(raw.reshape(_NUM_TRIAL_DRAWS, number))


def _to_uniforms(raw: NDArray[np.uint64]) -> Floats:
    """64 random bits to a double in [0, 1)."""
    return np.asarray((raw >> np.uint64(11)) * 2.0**-53, np.float64)


def _count_hidden(trials: BlockDraw, config: BlockMaskConfig, index: int) -> int:
    """How many cells to hide; refuses a generator that the grid is too small for."""
    _, rows, columns = trials.union.shape
    counts = trials.union.sum(axis=(1, 2))
    where = f"objective.masks.generators.{index}"
    empty = float((counts == rows * columns).mean())
    if empty > _MAX_EMPTY_FRACTION:
        raise ConfigError(
            f"{config.num_blocks} blocks of {config.spatial_scale} leave no context on a grid of "
            f"{rows} x {columns} in {empty:.0%} of draws",
            "Use smaller or fewer blocks, a smaller patch, or a larger clip.",
            where,
        )
    fraction = config.context_fraction
    hidden = round(float(counts.mean()) if fraction is None else rows * columns * (1 - fraction))
    if not 0 < hidden < rows * columns:
        raise ConfigError(
            f"context_fraction {fraction} hides {hidden} of {rows * columns} cells",
            "Leave at least one cell visible and one hidden.",
            where,
        )
    return hidden
