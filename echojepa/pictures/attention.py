"""Where a video encoder looks: maps of the attention weights of a block, for one clip.

Two views of the weights A of a head, A[i, j] being what the token (query) i takes from the token j
(every row sums to 1):

received  the column sums, of token j: sum over all queries i of A[i, j]. The mean of such a map is
          1, which is also what every token receives where attention is uniform. Bright tokens are
          looked at by many others.
given     of token i, what it gives to its own time step: the sum of A[i, j] over the tokens j of
          the same time, between 0 and 1; uniform attention gives 1 / time steps. Bright tokens
          look at the picture around them, dark ones at other moments.

Both are plain sums of weights: nothing is thresholded, inverted or chosen by looking.

The weights are computed again from the input of the block, by its own projection and rotary code,
for a few queries at a time: never more than `MAX_WEIGHTS` at once.

Shapes: N tokens of a clip, E width of a head, F time steps, R rows, C columns of the token grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from echojepa.errors import ConfigError
from echojepa.models.attention import Block, Grid, Rotary
from echojepa.models.encoder import VideoEncoder, normalise

MAX_WEIGHTS = 2**24
"""Attention weights that are computed at once, in float32: 64 MiB of them."""


class BlockInput(NamedTuple):
    """What a block is given of one clip."""

    block: Block
    x: torch.Tensor
    """[1, N, D]."""
    table: Rotary
    grid: Grid


class AttentionMaps(NamedTuple):
    """Of one block; see the module."""

    received: NDArray[np.float32]
    """[heads, F, R, C]."""
    given: NDArray[np.float32]
    """[heads, F, R, C]."""


@torch.inference_mode()
def block_inputs(
    encoder: VideoEncoder, clip: NDArray[np.uint8], layers: Sequence[int]
) -> dict[int, BlockInput]:
    """The inputs of some blocks, from one pass over the clip.

    Args:
        encoder: in evaluation mode, on any device.
        clip: RGB [T, H, W, 3].
        layers: indices of blocks, from 0.

    Raises:
        ConfigError: the encoder has no such block.
        ValueError: the clip is not a whole number of tubelets.
    """
    depth = len(encoder.blocks)
    if not all(0 <= layer < depth for layer in layers):
        raise ConfigError(
            f"attention of the layers {tuple(layers)}: the encoder has no such layer",
            f"Name layers from 0 to {depth - 1}.",
        )
    grid = encoder.config.grid(*clip.shape[:3])
    found: dict[int, BlockInput] = {}
    hooks = [
        encoder.blocks[layer].register_forward_pre_hook(partial(_keep, found, layer, grid))
        for layer in layers
    ]
    parameter = next(encoder.parameters())
    pixels = torch.from_numpy(clip[None]).to(parameter.device)
    try:
        encoder(normalise(pixels, parameter.dtype))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _keep(
    found: dict[int, BlockInput],
    layer: int,
    grid: Grid,
    block: torch.nn.Module,
    given: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    """Note what a block is given."""
    assert isinstance(block, Block)
    x, cos, sin = given
    found[layer] = BlockInput(block, x, Rotary(cos, sin), grid)


@torch.inference_mode()
def attention_rows(
    given: BlockInput, limit: int = MAX_WEIGHTS
) -> Iterator[tuple[slice, torch.Tensor]]:
    """The attention weights of a block, for some queries at a time.

    Args:
        limit: weights at once; never less than one query's.

    Yields:
        Which queries, and their weights, float32 [heads, queries, N].
    """
    attention = given.block.attn
    q, k, _ = attention.queries_keys_values(given.block.norm1(given.x), given.table)
    q, k = q[0].float(), k[0].float()  # [heads, N, E]
    heads, number, width = q.shape
    step = max(1, limit // (heads * number))
    for start in range(0, number, step):
        here = slice(start, min(start + step, number))
        yield here, (q[:, here] @ k.mT * width**-0.5).softmax(dim=-1)


@torch.inference_mode()
def attention_maps(given: BlockInput, limit: int = MAX_WEIGHTS) -> AttentionMaps:
    """What every token receives and gives, per head.

    Args:
        given: from `block_inputs`.
        limit: see `attention_rows`.
    """
    grid, heads = given.grid, given.block.attn.num_heads
    received = torch.zeros(heads, grid.num_tokens, device=given.x.device)
    gives = torch.zeros_like(received)
    time = torch.arange(grid.num_tokens, device=given.x.device) // grid.num_cells
    for queries, weights in attention_rows(given, limit):
        received += weights.sum(dim=1)
        by_time = weights.unflatten(-1, (grid.frames, grid.num_cells)).sum(dim=-1)
        own = time[queries].expand(heads, -1)[..., None]  # [heads, queries, 1]
        gives[:, queries] = by_time.gather(-1, own)[..., 0]
    return AttentionMaps(_on_grid(received, grid), _on_grid(gives, grid))


def _on_grid(values: torch.Tensor, grid: Grid) -> NDArray[np.float32]:
    return np.asarray(values.reshape(-1, *grid).float().cpu().numpy())
