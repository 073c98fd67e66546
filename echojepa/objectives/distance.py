"""How far every visible token is from the nearest hidden one.

Shapes: B clips, K visible tokens, M hidden tokens.
"""

from __future__ import annotations

import torch

from echojepa.models.attention import Grid
from echojepa.models.encoder import gather_tokens


def distance_weights(keep: torch.Tensor, hidden: torch.Tensor, grid: Grid) -> torch.Tensor:
    """1 / sqrt(d), d the distance of a visible token to the nearest hidden one, in tokens.

    V-JEPA 2.1's weight of visible tokens: those at the border of what is hidden count most.

    Args:
        keep: visible token indices, [B, K].
        hidden: hidden token indices, [B, M], none of them visible.

    Returns:
        [B, K] float32, between 0 and 1.
    """
    squared = _squared_distances(hidden, grid)
    return gather_tokens(squared[..., None], keep)[..., 0] ** -0.25


def _squared_distances(hidden: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Squared Euclidean distance of every token to the nearest hidden one, [B, N].

    Exact, and separable: the nearest along one axis, then along the next (Felzenszwalb and
    Huttenlocher 2012). Sides are short, so each axis compares all its positions with all others.
    """
    field = torch.full((len(hidden), grid.num_tokens), torch.inf, device=hidden.device)
    field = field.scatter(1, hidden, 0.0).view(-1, *grid)
    for axis, side in enumerate(grid, start=1):
        along = torch.arange(side, device=hidden.device, dtype=torch.float32)
        gaps = (along[:, None] - along).square()  # [side, side]
        lines = field.movedim(axis, -1)[..., None, :] + gaps  # [..., here, there]
        field = lines.amin(dim=-1).movedim(-1, axis)
    return field.flatten(1)
