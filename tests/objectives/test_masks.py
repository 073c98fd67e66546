"""Masks: exact counts, the law of the published blocks, and purity in (seed, s)."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from echojepa.errors import ConfigError
from echojepa.models.attention import Grid
from echojepa.objectives.masks import BlockMaskConfig, MaskConfig, MaskSampler, TokenMask
from echojepa.randomness import Seeds

GRID = Grid(8, 14, 14)
SMALL = MaskConfig(
    generators=(
        BlockMaskConfig(num_blocks=4, spatial_scale=0.15),
        BlockMaskConfig(num_blocks=2, spatial_scale=0.5),
    )
)
FEW_BLOCKS = MaskConfig(
    generators=(
        BlockMaskConfig(num_blocks=3, spatial_scale=0.15),
        BlockMaskConfig(num_blocks=1, spatial_scale=0.6, context_fraction=0.3),
    )
)
"""Leaves context on any grid."""
REFERENCE = MaskConfig(truncate_group=128)


@cache
def sampler(config: MaskConfig = MaskConfig(), grid: Grid = GRID, seed: int = 0) -> MaskSampler:  # noqa: B008 - frozen
    """Samplers are pure and slow to make."""
    return MaskSampler(config, grid, Seeds(seed))


def visible(fraction: float) -> BlockMaskConfig:
    """The first published generator with a fixed share of visible cells."""
    return BlockMaskConfig(num_blocks=8, spatial_scale=0.15, context_fraction=fraction)


def equal(one: list[TokenMask], other: list[TokenMask]) -> bool:
    """Whether all masks of two batches are the same."""
    pairs = zip(one, other, strict=True)
    return all(np.array_equal(a, b) for x, y in pairs for a, b in zip(x, y, strict=True))


@settings(max_examples=8, deadline=None)
@given(
    grid=st.builds(Grid, st.integers(1, 3), st.integers(5, 8), st.integers(5, 8)),
    seed=st.integers(0, 2**63),
    samples=st.lists(st.integers(0, 2**55), min_size=1, max_size=20),
)
def test_every_mask_is_an_exact_partition_into_whole_tubes(
    grid: Grid, seed: int, samples: list[int]
) -> None:
    masks = MaskSampler(FEW_BLOCKS, grid, Seeds(seed))
    drawn = masks(np.array(samples))
    for (context, hidden), num_hidden in zip(drawn, masks.num_hidden, strict=True):
        assert hidden.shape == (len(samples), num_hidden * grid.frames)
        assert context.shape == (len(samples), (grid.num_cells - num_hidden) * grid.frames)
        both = np.sort(np.concatenate([context, hidden], axis=1), axis=1)
        assert np.array_equal(both, np.tile(np.arange(grid.num_tokens), (len(samples), 1)))
        for tokens in (context, hidden):
            assert (np.diff(tokens, axis=1) > 0).all()
            cells = (tokens % grid.num_cells).reshape(len(samples), grid.frames, -1)
            assert (cells == cells[:, :1]).all()


@pytest.mark.parametrize(
    ("grid", "number"), [(GRID, 4000), (Grid(8, 21, 21), 3000), (Grid(8, 10, 10), 4000)]
)
def test_every_cell_is_hidden_as_often_as_by_the_blocks_themselves(grid: Grid, number: int) -> None:
    masks = sampler(grid=grid)
    samples = 10_000 + np.arange(number)  # none of those the sampler calibrates itself on
    for index in range(2):
        exact = masks.exact_masks(index, samples)
        assert set(exact.sum(axis=(1, 2)).tolist()) == {masks.num_hidden[index]}
        difference = exact.mean(axis=0) - masks.free_masks(index, samples).mean(axis=0)
        # The law is symmetric: averaging mirror images removes noise, and no bias.
        mirrored = (difference + difference[::-1]) / 2
        mirrored = (mirrored + mirrored[:, ::-1]) / 2
        assert np.abs(mirrored).max() < 0.02


def test_the_published_blocks_hide_what_the_reference_hides_before_truncation() -> None:
    fractions = [1 - hidden / GRID.num_cells for hidden in sampler().num_hidden]
    assert fractions == pytest.approx([0.376, 0.189], abs=0.01)


def test_counts_are_a_property_of_the_blocks_and_the_grid_not_of_the_seed() -> None:
    twins = MaskConfig(generators=(SMALL.generators[0], SMALL.generators[0]))
    counts = [sampler(twins, Grid(1, 9, 9), seed).num_hidden for seed in range(2)]
    assert len({count for pair in counts for count in pair}) == 1


def test_whether_a_grid_is_too_small_does_not_depend_on_the_seed() -> None:
    def accepted(seed: int) -> bool:
        try:
            sampler(grid=Grid(1, 10, 10), seed=seed)
        except ConfigError:
            return False
        return True

    assert len({accepted(seed) for seed in range(2)}) == 1


@pytest.mark.parametrize("fraction", [0.051, 0.195, 0.5, 0.9])
def test_the_context_fraction_is_met_by_every_sample(fraction: float) -> None:
    masks = sampler(MaskConfig(generators=(visible(fraction),)))
    (context, hidden) = masks(np.arange(40))[0]
    cells = context.shape[1] / GRID.frames
    assert cells == int(cells)
    assert abs(cells - fraction * GRID.num_cells) <= 0.5
    assert context.shape[1] + hidden.shape[1] == GRID.num_tokens


@pytest.mark.parametrize(("fraction", "hidden"), [(0.999, 0), (0.001, 196)])
def test_a_context_fraction_that_hides_nothing_or_everything_is_refused(
    fraction: float, hidden: int
) -> None:
    with pytest.raises(ConfigError, match=f"hides {hidden} of 196 cells") as caught:
        MaskSampler(MaskConfig(generators=(visible(fraction),)), GRID, Seeds(0))
    assert caught.value.where == "objective.masks.generators.0"


def test_a_grid_too_small_for_the_blocks_is_refused() -> None:
    with pytest.raises(ConfigError, match="leave no context on a grid of 4 x 4 in 3") as caught:
        MaskSampler(MaskConfig(), Grid(8, 4, 4), Seeds(0))
    assert caught.value.where == "objective.masks.generators.1"
    assert "larger clip" in caught.value.remedy


@pytest.mark.parametrize("config", [SMALL, SMALL.model_copy(update={"truncate_group": 16})])
def test_masks_are_pure_in_seed_and_sample(config: MaskConfig) -> None:
    """Whatever else is in the batch; with truncation, whichever part of the group it is."""
    grid = Grid(2, 8, 9)
    masks, again = sampler(config, grid, 5), MaskSampler(config, grid, Seeds(5))
    whole = masks(np.arange(32, 48))
    order = np.random.default_rng(0).permutation(16)
    for rows in (np.array([7]), np.arange(12, 16), order[:5], order, np.arange(16)):
        expected = [TokenMask(m.context[rows], m.hidden[rows]) for m in whole]
        assert equal(again(32 + rows), expected)


def test_samples_generators_and_seeds_draw_different_masks() -> None:
    same_counts = SMALL.generators[0].model_copy(update={"context_fraction": 0.5})
    config, grid = MaskConfig(generators=(same_counts, same_counts)), Grid(1, 9, 9)
    first, second = sampler(config, grid, 0)(np.arange(50))
    other = sampler(config, grid, 1)(np.arange(50))[0]
    together = np.concatenate([first.hidden, second.hidden, other.hidden])
    assert len(np.unique(together, axis=0)) > 145


def shares(tokens: NDArray[np.int64]) -> float:
    """Tokens per clip over all tokens."""
    return tokens.shape[1] / GRID.num_tokens


def test_truncation_reproduces_the_law_of_the_reference() -> None:
    masks = sampler(REFERENCE)
    groups = [masks(np.arange(128 * k, 128 * k + 2)) for k in range(60)]
    context = np.mean([[shares(m.context) for m in group] for group in groups], axis=0)
    hidden = np.mean([[shares(m.hidden) for m in group] for group in groups], axis=0)
    assert context == pytest.approx([0.195, 0.051], abs=0.01)
    assert hidden == pytest.approx([0.428, 0.699], abs=0.01)


def test_truncated_masks_are_disjoint_and_in_time_order() -> None:
    for context, hidden in sampler(REFERENCE)(np.arange(128, 256)):
        assert (np.diff(context, axis=1) > 0).all()
        assert (np.diff(hidden, axis=1) > 0).all()
        for keep, wanted in zip(context, hidden, strict=True):
            assert not set(keep.tolist()) & set(wanted.tolist())
        time = context // GRID.num_cells
        assert (time == 0).sum() > (time == GRID.frames - 1).sum()  # what exact masks are free of


@pytest.mark.parametrize("group", [1, 2])
def test_small_groups_draw_again_until_some_context_is_left(group: int) -> None:
    """The blocks of the second generator cover the whole grid in 2% of draws."""
    masks = sampler(REFERENCE.model_copy(update={"truncate_group": group}), Grid(1, 14, 14))
    assert masks.free_masks(1, np.arange(300)).all(axis=(1, 2)).any()
    for first in range(0, 300, group):
        for context, hidden in masks(np.arange(first, first + group)):
            assert context.shape[1] > 0 and hidden.shape[1] > 0


def test_a_batch_that_straddles_groups_is_refused() -> None:
    with pytest.raises(ConfigError, match="8 straddles groups of 128 samples") as caught:
        sampler(REFERENCE)(np.arange(124, 132))
    assert caught.value.where == "objective.masks.truncate_group"


def test_impossible_configs_are_refused() -> None:
    with pytest.raises(ValidationError, match="at least one mask generator"):
        MaskConfig(generators=())
    with pytest.raises(ValidationError, match="context_fraction must be null"):
        MaskConfig(generators=(visible(0.2),), truncate_group=8)
    for changes in ({"num_blocks": 0}, {"spatial_scale": 1.0}, {"context_fraction": 0.0}):
        with pytest.raises(ValidationError):
            BlockMaskConfig(**{"num_blocks": 2, "spatial_scale": 0.5, **changes})
