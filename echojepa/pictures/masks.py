"""A clip and its masks as one picture, for TensorBoard and reports."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from echojepa.models.attention import Grid

_NUM_FRAMES = 4
_TINT = np.array([36, 84, 148], np.float32)
_GAP = 2


def hidden_cells(hidden: NDArray[np.int64], grid: Grid) -> NDArray[np.bool_]:
    """Token indices [M] to cells [frames, rows, columns], True where hidden."""
    cells = np.zeros(grid.num_tokens, bool)
    cells[hidden] = True
    return cells.reshape(grid)


def mask_picture(
    clip: NDArray[np.uint8], hiddens: Sequence[NDArray[np.int64]], grid: Grid
) -> NDArray[np.uint8]:
    """One row per generator under the clip itself; hidden tokens are tinted blue.

    Args:
        clip: [T, H, W, 3].
        hiddens: hidden token indices per generator, [M_g] each.

    Returns:
        [(G + 1) (H + 2), F (W + 2), 3] with F frames, evenly spaced over the clip.
    """
    times = np.linspace(0, len(clip) - 1, min(_NUM_FRAMES, len(clip))).round().astype(int)
    rows = [list(clip[times])]
    for hidden in hiddens:
        cells = hidden_cells(hidden, grid)
        shown = []
        for time in times:
            mask = cells[time * grid.frames // len(clip)]
            scale = (clip.shape[1] // grid.rows, clip.shape[2] // grid.columns)
            mask = np.kron(mask, np.ones(scale, bool))[..., None]
            tinted = 0.25 * clip[time] + 0.75 * _TINT
            shown.append(np.where(mask, tinted, clip[time]).astype(np.uint8))
        rows.append(shown)
    pad = ((0, _GAP), (0, _GAP), (0, 0))
    return np.concatenate([np.concatenate([np.pad(f, pad) for f in row], axis=1) for row in rows])
