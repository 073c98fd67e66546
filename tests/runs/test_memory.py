"""Estimated memory against what autograd really keeps, and what the engine really holds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from echojepa.data.sampling import Seeds
from echojepa.models.encoder import EncoderConfig
from echojepa.models.predictor import PredictorConfig
from echojepa.objectives.jepa import Jepa, JepaConfig, ModelConfig
from echojepa.objectives.masks import BlockMaskConfig, MaskConfig, MaskSampler
from echojepa.runs.memory import footprint

MASKS = MaskConfig(
    generators=(
        BlockMaskConfig(num_blocks=3, spatial_scale=0.2),
        BlockMaskConfig(num_blocks=1, spatial_scale=0.6),
    )
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
    grid = model.encoder.grid(8, 64, 64)
    masks = MaskSampler(MASKS, grid, Seeds(0))
    drawn = masks(np.arange(2))
    jepa = Jepa(model, JepaConfig(masks=MASKS))
    weights = {p.untyped_storage().data_ptr() for p in jepa.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        losses = jepa(
            torch.zeros(2, 8, 64, 64, 3, dtype=torch.uint8),
            [torch.from_numpy(m.context) for m in drawn],
            [torch.from_numpy(m.hidden) for m in drawn],
        ).losses
    estimate = footprint(model, JepaConfig(masks=MASKS), masks.num_hidden, grid, (1, 2, 4))
    block = 0.0
    if recompute:
        plain = model.model_copy(update={"activation_checkpointing": False})
        whole = footprint(plain, JepaConfig(masks=MASKS), masks.num_hidden, grid, (1, 2, 4))
        tokens = max(grid.num_tokens - h * grid.frames for h in masks.num_hidden)
        largest = max(tokens * width, grid.num_tokens * 48)
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
    one, eight = (
        footprint(giant, JepaConfig(), [5, 5], giant.encoder.grid(16, 224, 224), (n, 1, 2))
        for n in (1, 8)
    )
    trained = 1012.2e6 + 22.1e6
    assert one.states == pytest.approx(18 * trained + 6 * 1012.2e6, rel=0.01)
    assert eight.states == pytest.approx(one.states / 8, rel=1e-6)
    assert one.checkpoint == pytest.approx(12 * trained + 4 * 1012.2e6, rel=0.01)
