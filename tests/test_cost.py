"""Counted operations against PyTorch's own counter, memory against what autograd really keeps.

The counter sees matrix products only, so attention runs on the plain `MATH` backend here, whose
two products it counts; which backend runs does not change how many operations there are.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.masks import MASKS
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from echojepa.cost import (
    Footprint,
    count_parameters,
    encoder_pass,
    flops_per_clip,
    footprint,
    predictor_pass,
)
from echojepa.data.stream import StreamShape
from echojepa.models.attention import Grid
from echojepa.models.encoder import EncoderConfig, VideoEncoder
from echojepa.models.predictor import Predictor, PredictorConfig
from echojepa.objectives.jepa import JepaConfig
from echojepa.objectives.objective import ModelConfig, Objective
from echojepa.randomness import Seeds

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
    expected = encoder_pass(config, num_kept or 32, trained=False)
    assert found == pytest.approx(2 * flops_per_clip([expected]), rel=0.01)


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
    expected = predictor_pass(config, encoder, num_context, GRID.num_tokens - num_context)
    assert found == pytest.approx(expected.flops, rel=0.01)


def test_attention_grows_with_the_square_of_the_tokens() -> None:
    config = EncoderConfig(width=64, depth=1, num_heads=2)
    one, two = (encoder_pass(config, n, trained=False).flops for n in (1000, 2000))
    assert two - 2 * one == 2 * 4 * 1000**2 * 64


def test_a_trained_pass_costs_three_but_for_gradients_of_pixels() -> None:
    config = EncoderConfig(width=64, depth=1, num_heads=2)
    frozen, trained = (encoder_pass(config, 100, trained=flag) for flag in (False, True))
    first_layer = 2 * 100 * 64 * (3 * 2 * 16 * 16)
    assert flops_per_clip([frozen, trained]) == 4 * frozen.flops - first_layer


# --------------------------------------------------------------------------------------- memory


def built(model: ModelConfig) -> Objective:
    """The objective of a model on clips of 8 frames and 8 x 8 patches."""
    side = 8 * model.encoder.patch_size
    grid = model.encoder.grid(8, side, side)
    return JepaConfig(masks=MASKS).build(model, grid, Seeds(0))


def estimated(model: ModelConfig, num_workers: int, bytes_per_number: int = 4) -> Footprint:
    """What a worker needs for two clips per forward pass."""
    objective = built(model)
    with torch.device("meta"):
        parameters = count_parameters(objective.module(torch.float32), objective.facts.averages)
    return footprint(
        parameters,
        objective.passes(),
        StreamShape(2 * num_workers, num_workers, 2, 1, 2),
        bytes_per_number=bytes_per_number,
        recompute=model.activation_checkpointing,
    )


@pytest.mark.parametrize("recompute", [False, True])
def test_activations_are_what_autograd_keeps(recompute: bool) -> None:
    """Within 15%; with recomputation, one block more than what is kept at once."""
    width = 48
    model = ModelConfig(
        encoder=EncoderConfig(width=width, depth=6, num_heads=4, patch_size=8),
        predictor=PredictorConfig(width=48, depth=3, num_heads=4),
        activation_checkpointing=recompute,
    )
    objective = built(model)
    jepa = objective.module(torch.float32)
    weights = {p.untyped_storage().data_ptr() for p in jepa.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        pixels = torch.zeros(2, 8, 64, 64, 3, dtype=torch.uint8)
        losses = jepa(pixels, *objective.draw(np.arange(2))).losses
    estimate = estimated(model, num_workers=1)
    block = 0.0
    if recompute:
        plain = model.model_copy(update={"activation_checkpointing": False})
        whole = estimated(plain, num_workers=1)
        largest = max(p.num_tokens * p.width for p in objective.passes() if p.trained)
        block = 2 * 4 * 17 * largest
        assert estimate.activations < 0.5 * whole.activations
    print(f"kept {sum(kept.values())}, estimated {estimate.activations}")
    assert losses.requires_grad
    assert estimate.activations == pytest.approx(sum(kept.values()) + block, rel=0.15)


def test_states_of_the_published_giant() -> None:
    """20 bytes per trained and 6 per averaged parameter in bfloat16, over the workers."""
    giant = ModelConfig(
        encoder=EncoderConfig(width=1408, depth=40, num_heads=22, mlp_ratio=48 / 11)
    )
    one, eight = (estimated(giant, num_workers=n, bytes_per_number=2) for n in (1, 8))
    trained = 1012.2e6 + 22.1e6
    assert one.states == pytest.approx(18 * trained + 6 * 1012.2e6, rel=0.01)
    assert eight.states == pytest.approx(one.states / 8, rel=1e-6)
    assert one.checkpoint == pytest.approx(12 * trained + 4 * 1012.2e6, rel=0.01)
