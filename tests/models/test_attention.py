"""Our block against timm's, which a vision researcher knows: same names, same numbers."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from timm.models.vision_transformer import Block as TimmBlock
from torch import nn

from echojepa.models.attention import Block, Grid, RotaryConfig, rotary_table

WIDTH, HEADS, HIDDEN = 24, 3, 40


@pytest.fixture
def pair() -> tuple[Block, TimmBlock]:
    """Two blocks with one set of weights, loaded strictly."""
    ours = Block(WIDTH, HEADS, HIDDEN)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    theirs = TimmBlock(
        WIDTH,
        HEADS,
        mlp_ratio=HIDDEN / WIDTH,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


def test_without_rotation_a_block_is_timms(pair: tuple[Block, TimmBlock]) -> None:
    ours, theirs = pair
    x = torch.randn(2, 7, WIDTH)
    still = torch.ones(1), torch.zeros(1)
    assert torch.allclose(ours(x, *still), theirs(x), atol=1e-5)


def test_rotation_is_all_that_differs(pair: tuple[Block, TimmBlock]) -> None:
    ours, theirs = pair
    grid = Grid(2, 2, 2)
    table = rotary_table(torch.arange(8)[None], grid, WIDTH // HEADS, torch.float32, RotaryConfig())
    x = torch.randn(2, 8, WIDTH)
    difference = (ours(x, table.cos, table.sin) - theirs(x)).abs().amax(dim=(0, 2))
    assert difference.max() > 1e-2


def test_the_perceptron_is_timms(pair: tuple[Block, TimmBlock]) -> None:
    ours, theirs = pair
    x = torch.randn(2, 7, WIDTH)
    assert torch.allclose(ours.mlp(x), theirs.mlp(x), atol=1e-6)
