"""Counted operations against PyTorch's own counter.

The counter sees matrix products only, so attention runs on the plain `MATH` backend here, whose
two products it counts; which backend runs does not change how many operations there are.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from echojepa.cost import encoder_flops, predictor_flops, transformer_flops
from echojepa.models.attention import Grid
from echojepa.models.encoder import EncoderConfig, VideoEncoder
from echojepa.models.predictor import Predictor, PredictorConfig

GRID = Grid(2, 4, 4)


def counted(module: nn.Module, *inputs: object) -> int:
    """Operations of one forward pass, as PyTorch counts them."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        module(*inputs)
    total: int = counter.get_total_flops()
    return total


@pytest.mark.parametrize("mlp_ratio", [4.0, 48 / 11])
@pytest.mark.parametrize("num_kept", [None, 7])
def test_encoder(mlp_ratio: float, num_kept: int | None) -> None:
    config = EncoderConfig(width=44, depth=3, num_heads=2, mlp_ratio=mlp_ratio, patch_size=8)
    clip = torch.randn(2, 3, 4, 32, 32)
    keep = None if num_kept is None else torch.arange(num_kept).expand(2, -1)
    found = counted(VideoEncoder(config), clip, keep)
    assert found == pytest.approx(2 * encoder_flops(config, num_kept or 32), rel=0.01)


@pytest.mark.parametrize("num_context", [5, 20])
@pytest.mark.parametrize("num_levels", [1, 2])
@pytest.mark.parametrize("context_head", [False, True])
def test_predictor(num_context: int, num_levels: int, context_head: bool) -> None:
    encoder = EncoderConfig(width=44, depth=2, num_heads=2, num_levels=num_levels)
    config = PredictorConfig(width=36, depth=2, num_heads=3, context_head=context_head)
    tokens = torch.arange(GRID.num_tokens)[None]
    context = torch.randn(1, num_context, num_levels * 44)
    given = context, tokens[:, :num_context], tokens[:, num_context:], GRID
    found = counted(Predictor(config, encoder), *given)
    expected = predictor_flops(config, encoder, num_context, GRID.num_tokens - num_context)
    assert found == pytest.approx(expected, rel=0.01)


def test_attention_grows_with_the_square_of_the_tokens() -> None:
    one, two = (transformer_flops(n, 64, 1, 4.0) for n in (1000, 2000))
    assert two - 2 * one == 2 * 4 * 1000**2 * 64
