"""Masks without shape: tubes or single tokens, drawn at random; and every kind in one type.

VideoMAE (Tong et al. 2022) hides tubes, cells of the grid at all times: a token's neighbours in
time, which show almost the same, must not give it away. Every sample hides exactly the same number,
as the blocks of `masks` do, and is a pure function of (seed, s).

Shapes: B samples, K visible tokens, M hidden tokens, N all tokens.
"""

from __future__ import annotations

from typing import Annotated, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from echojepa.config import Strict
from echojepa.errors import ConfigError
from echojepa.models.attention import Grid
from echojepa.objectives.masks import MaskConfig, MaskSampler, TokenMask
from echojepa.randomness import Domain, SampleRng, Seeds


class _ScatteredMaskConfig(Strict):
    hidden_fraction: float = Field(0.9, gt=0, lt=1)
    """Share that is hidden, rounded to whole ones."""


class TubeMaskConfig(_ScatteredMaskConfig):
    """Random cells of the grid, hidden at all times (VideoMAE)."""

    kind: Literal["tubes"] = "tubes"

    def describe(self) -> str:
        """In words."""
        return f"{self.hidden_fraction:.0%} of all tubes"


class RandomMaskConfig(_ScatteredMaskConfig):
    """Random tokens, each for itself."""

    kind: Literal["random"] = "random"

    def describe(self) -> str:
        """In words."""
        return f"{self.hidden_fraction:.0%} of all tokens"


class BlocksMaskConfig(MaskConfig):
    """Blocks of cells, hidden at all times: the masks of latent prediction."""

    kind: Literal["blocks"] = "blocks"


AnyMasks = Annotated[
    TubeMaskConfig | RandomMaskConfig | BlocksMaskConfig, Field(discriminator="kind")
]
"""The type of a config's `masks` section, where it may be of any kind."""
Masks = TubeMaskConfig | RandomMaskConfig | MaskConfig


class Sampler(Protocol):
    """Masks of any samples."""

    @property
    def num_hidden_tokens(self) -> list[int]:
        """Hidden tokens of a clip, per mask."""

    def __call__(self, samples: NDArray[np.int64]) -> list[TokenMask]:
        """Every mask for global sample indices [B]."""


def sampler_of(config: Masks, grid: Grid, seeds: Seeds) -> Sampler:
    """What draws the masks that a config names; raises `ConfigError` if they do not fit."""
    if isinstance(config, MaskConfig):
        return MaskSampler(config, grid, seeds)
    return ScatteredMaskSampler(config, grid, seeds)


class ScatteredMaskSampler:
    """One mask per clip, of tubes or of tokens."""

    def __init__(self, config: TubeMaskConfig | RandomMaskConfig, grid: Grid, seeds: Seeds) -> None:
        """Raises `ConfigError` if the fraction rounds to none or to all."""
        self._seeds = seeds
        # A unit is hidden or visible as a whole: a cell with its `repeats` tokens, or one token.
        tubes = config.kind == "tubes"
        self._num_units = grid.num_cells if tubes else grid.num_tokens
        self._repeats = grid.frames if tubes else 1
        self._num_hidden = round(config.hidden_fraction * self._num_units)
        if not 0 < self._num_hidden < self._num_units:
            raise ConfigError(
                f"hidden_fraction {config.hidden_fraction} hides {self._num_hidden} of "
                f"{self._num_units} {config.kind}",
                "Leave at least one visible and hide at least one.",
                "objective.masks.hidden_fraction",
            )

    @property
    def num_hidden_tokens(self) -> list[int]:
        """See `Sampler`."""
        return [self._num_hidden * self._repeats]

    def __call__(self, samples: NDArray[np.int64]) -> list[TokenMask]:
        """See `Sampler`."""
        keys = np.stack(
            [
                SampleRng(self._seeds.at(s), Domain.MASK, s).raw(self._num_units)
                for s in samples.tolist()
            ]
        )
        order = np.argsort(keys, axis=1, kind="stable")  # a random order of the units of each row
        hidden, visible = order[:, : self._num_hidden], order[:, self._num_hidden :]
        return [TokenMask(self._tokens(visible), self._tokens(hidden))]

    def _tokens(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        """Units [B, n] to the indices of their tokens, ascending, [B, n repeats]."""
        starts = np.arange(self._repeats)[:, None] * self._num_units
        return (starts + np.sort(units, axis=1)[:, None]).reshape(len(units), -1)
