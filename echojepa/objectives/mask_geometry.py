"""Block masks on a grid, vectorised over samples: drawing them, and making their counts equal.

Pure functions of uniform numbers. Shapes: B samples, R x C grid, Q = R C cells; masks are True
where hidden.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from echojepa.models.attention import Grid

Masks = NDArray[np.bool_]
Floats = NDArray[np.float64]

_CALIBRATION_ROUNDS = 8


class Blocks(NamedTuple):
    """What one generator draws."""

    number: int
    spatial_scale: float
    """Area of a block as a share of the grid."""
    aspect: tuple[float, float]
    """Height over width, uniform, one for all blocks of a sample."""


class BlockDraw(NamedTuple):
    """Masks as drawn, and what `adjust` needs to know of them."""

    union: Masks
    """Cells under any block, [B, R, C]."""
    only_last: Masks
    """Cells under the last block and no other, [B, R, C]."""
    keys: Floats
    """A uniform number per cell, which decides who is flipped first, [B, Q]."""


def num_uniforms(blocks: Blocks, grid: Grid) -> int:
    """Uniform numbers one sample needs: an aspect, a position per block, a key per cell."""
    return 1 + 2 * blocks.number + grid.num_cells


def draw_blocks(blocks: Blocks, grid: Grid, uniforms: Floats) -> BlockDraw:
    """Draw the blocks of B samples from uniform numbers [B, `num_uniforms`] in [0, 1)."""
    # One aspect for all blocks of a sample, then a corner per block: uniforms [:, 0] is the aspect,
    # the next two runs of `number` are tops and lefts, the rest are the keys of the cells.
    area = np.floor(blocks.spatial_scale * grid.num_cells)
    aspect = blocks.aspect[0] + (blocks.aspect[1] - blocks.aspect[0]) * uniforms[:, :1]
    height = np.clip(np.rint(np.sqrt(area * aspect)), 1, grid.rows)  # [B, 1]
    width = np.clip(np.rint(np.sqrt(area / aspect)), 1, grid.columns)
    top = np.floor(uniforms[:, 1 : 1 + blocks.number] * (grid.rows - height + 1))
    left = np.floor(
        uniforms[:, 1 + blocks.number : 1 + 2 * blocks.number] * (grid.columns - width + 1)
    )
    in_rows = _between(np.arange(grid.rows), top, height)  # [B, blocks, R]
    in_columns = _between(np.arange(grid.columns), left, width)  # [B, blocks, C]
    each = in_rows[:, :, :, None] & in_columns[:, :, None, :]
    others = each[:, :-1].any(axis=1)
    return BlockDraw(
        np.asarray(each.any(axis=1)), each[:, -1] & ~others, uniforms[:, 1 + 2 * blocks.number :]
    )


def adjust(drawn: BlockDraw, num_hidden: int, tilt: Floats) -> Masks:
    """Cover or uncover random cells until each mask hides exactly `num_hidden`, [B, R, C].

    Too many hidden: cells that only the last block covers are uncovered first, then any.
    Too few: visible cells that share a side with hidden ones are covered, ring by ring.
    `tilt` [Q] makes a cell likelier to be covered and less likely to be uncovered by exp(tilt), see
    `calibrate`; who goes first is an exponential race, that is weighted drawing without replacement
    (Efraimidis and Spirakis 2006).
    """
    shape = drawn.union.shape
    hidden = drawn.union.reshape(len(drawn.union), -1).copy()
    # A cell with weight w waits for an exponential time of rate w; the first k to arrive are k
    # draws without replacement, weighted by w. Covering has the weight exp(tilt), uncovering its
    # inverse, from the same key, so that a cell is never both likely to be covered and uncovered.
    waiting = -np.log1p(-drawn.keys)
    to_cover, to_uncover = waiting * np.exp(-tilt), waiting * np.exp(tilt)
    # Cells under the last block alone come before all others: uncovering them shrinks one block
    # and leaves the shapes of the rest.
    order = np.where(drawn.only_last.reshape(hidden.shape), 0.0, to_uncover.max() + 1) + to_uncover
    excess = np.maximum(hidden.sum(axis=1) - num_hidden, 0)
    hidden &= ~_first(order, hidden, excess)
    missing = num_hidden - hidden.sum(axis=1)
    while missing.any():
        border = _border(hidden.reshape(shape)).reshape(hidden.shape)
        hidden |= _first(to_cover, border, missing)
        missing = num_hidden - hidden.sum(axis=1)
    return hidden.reshape(shape)


def calibrate(drawn: BlockDraw, num_hidden: int) -> Floats:
    """The tilt [Q] with which `adjust` hides every cell as often as the blocks themselves do.

    Equal counts alone would shift hiding by up to six points between the middle and the edge. A
    fixed point on the given draws, averaged over the mirror images of the grid, which the law of
    blocks is invariant to.
    """
    shape = drawn.union.shape[1:]
    # Fixed point: raise a cell's log-odds by what its hiding rate falls short of the blocks' own,
    # in units of p (1 - p), the slope of a logistic curve. Eight rounds bring the largest
    # difference per cell to about one percentage point.
    wanted = _mirrored(drawn.union.mean(axis=0))
    spread = np.maximum(wanted * (1 - wanted), 0.02)
    tilt = np.zeros(wanted.size)
    for _ in range(_CALIBRATION_ROUNDS):
        found = _mirrored(adjust(drawn, num_hidden, tilt).mean(axis=0))
        tilt += ((wanted - found) / spread).reshape(-1)
    assert tilt.size == shape[0] * shape[1]
    return tilt


def _between(axis: NDArray[np.int64], start: Floats, length: Floats) -> Masks:
    """[B, blocks] starts and [B, 1] lengths to membership [B, blocks, positions]."""
    return (axis >= start[..., None]) & (axis < (start + length)[..., None])


def _first(order: Floats, candidates: Masks, number: NDArray[np.int64]) -> Masks:
    """The `number` [B] candidates that come first by `order`, as a mask [B, Q]."""
    ranked = np.where(candidates, order, np.inf)
    rank = ranked.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    return (rank < number[:, None]) & candidates


def _border(hidden: Masks) -> Masks:
    """Visible cells that share a side with a hidden one, [B, R, C]."""
    padded = np.pad(hidden, ((0, 0), (1, 1), (1, 1)))
    beside = padded[:, :-2, 1:-1] | padded[:, 2:, 1:-1] | padded[:, 1:-1, :-2] | padded[:, 1:-1, 2:]
    return beside & ~hidden


def _mirrored(rate: Floats) -> Floats:
    return (rate + rate[::-1] + rate[:, ::-1] + rate[::-1, ::-1]) / 4
