"""Tubes and single tokens, hidden at random: exact counts, and a fair lottery."""

from __future__ import annotations

import numpy as np
import pytest
from support.masks import BLOCKS

from echojepa.errors import ConfigError
from echojepa.models.attention import Grid
from echojepa.objectives.masks import MaskSampler
from echojepa.objectives.token_masks import (
    RandomMaskConfig,
    ScatteredMaskSampler,
    TubeMaskConfig,
    sampler_of,
)
from echojepa.randomness import Seeds

GRID = Grid(3, 4, 5)
KINDS = [TubeMaskConfig(hidden_fraction=0.7), RandomMaskConfig(hidden_fraction=0.7)]
kinds = pytest.mark.parametrize("config", KINDS, ids=["tubes", "random"])


def hidden(config: TubeMaskConfig | RandomMaskConfig, number: int, seed: int = 0) -> np.ndarray:
    """Where tokens are hidden, [B, frames, cells]."""
    [mask] = ScatteredMaskSampler(config, GRID, Seeds(seed))(np.arange(number))
    found = np.zeros((number, GRID.num_tokens), bool)
    np.put_along_axis(found, mask.hidden, True, axis=1)
    return found.reshape(number, GRID.frames, GRID.num_cells)


@kinds
def test_every_token_is_visible_or_hidden_and_the_counts_are_exact(
    config: TubeMaskConfig | RandomMaskConfig,
) -> None:
    sampler = ScatteredMaskSampler(config, GRID, Seeds(3))
    [mask] = sampler(np.array([5, 0, 999]))
    assert sampler.num_hidden_tokens == [42]  # 14 of 20 tubes of 3 tokens, or 42 of 60 tokens
    assert mask.hidden.shape == (3, 42)
    both = np.concatenate([mask.context, mask.hidden], axis=1)
    assert (np.sort(both, axis=1) == np.arange(60)).all()
    for tokens in mask:
        assert (np.diff(tokens, axis=1) > 0).all()


def test_a_tube_is_hidden_at_all_times_and_a_token_for_itself() -> None:
    tubes, tokens = (hidden(config, 50) for config in KINDS)
    assert (tubes == tubes[:, :1]).all()
    assert not (tokens == tokens[:, :1]).all(axis=(1, 2)).any()


@kinds
def test_every_token_is_hidden_equally_often(config: TubeMaskConfig | RandomMaskConfig) -> None:
    rate = hidden(config, 4000).mean(axis=0)
    assert np.abs(rate - 0.7).max() < 4 * np.sqrt(0.7 * 0.3 / 4000)


@kinds
def test_a_mask_belongs_to_seed_and_sample_alone(
    config: TubeMaskConfig | RandomMaskConfig,
) -> None:
    whole = hidden(config, 20)
    [one] = ScatteredMaskSampler(config, GRID, Seeds(0))(np.array([13]))
    assert np.flatnonzero(whole[13]).tolist() == one.hidden[0].tolist()
    assert (whole != hidden(config, 20, seed=1)).any(axis=(1, 2)).all()
    assert (whole[1:] != whole[:1]).any(axis=(1, 2)).all()


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_a_fraction_that_hides_none_or_all_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match=r"hides (0|20) of 20 tubes"):
        sampler_of(TubeMaskConfig(hidden_fraction=fraction), GRID, Seeds(0))


def test_blocks_are_those_of_latent_prediction() -> None:
    samples = np.arange(4)
    found = sampler_of(BLOCKS, Grid(2, 8, 8), Seeds(0))
    expected = MaskSampler(BLOCKS, Grid(2, 8, 8), Seeds(0))
    for one, other in zip(found(samples), expected(samples), strict=True):
        assert np.array_equal(one.hidden, other.hidden)
    counts = [mask.hidden.shape[1] for mask in found(samples)]
    assert found.num_hidden_tokens == counts
