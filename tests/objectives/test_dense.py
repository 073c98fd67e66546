"""The dense variant: visible tokens count too, and several depths are compared."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from echojepa.models.encoder import EncoderConfig, gather_tokens, normalise
from echojepa.models.predictor import PredictorConfig
from echojepa.objectives.distance import distance_weights
from echojepa.objectives.jepa import Jepa, JepaConfig
from echojepa.objectives.objective import ModelConfig

ENCODER = EncoderConfig(width=24, depth=4, num_heads=2, patch_size=4, num_levels=2)
GRID = ENCODER.grid(4, 16, 16)
Batch = tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]


def jepa(weight: float, *, distance: bool = False) -> Jepa:
    """A tiny two-level model whose target has moved away from the online encoder."""
    predictor = PredictorConfig(width=12, depth=1, num_heads=2, context_head=weight > 0)
    objective = JepaConfig(context_weight=weight, context_distance=distance)
    module = Jepa(ModelConfig(encoder=ENCODER, predictor=predictor), objective)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return module


@pytest.fixture
def batch() -> Batch:
    """Three random clips of 4 frames of 16 x 16 pixels, with two masks of different size."""
    pixels = torch.randint(0, 256, (3, 4, 16, 16, 3), dtype=torch.uint8)
    contexts, hiddens = [], []
    for number in (9, 20):
        order = torch.stack([torch.randperm(GRID.num_tokens) for _ in range(3)])
        contexts.append(order[:, :number].sort(dim=1)[0])
        hiddens.append(order[:, number:].sort(dim=1)[0])
    return pixels, contexts, hiddens


@pytest.mark.parametrize("distance", [False, True])
@torch.no_grad()
def test_the_loss_is_its_definition(batch: Batch, distance: bool) -> None:
    """Level by level: rows of hidden tokens first, then the weighted rows of visible ones."""
    module = jepa(0.5, distance=distance)
    pixels, contexts, hiddens = batch
    output = module(pixels, contexts, hiddens)
    assert output.losses.shape == (4, 3)
    clip = normalise(pixels, torch.float32)
    levels = module.target(clip, levels=True)
    assert levels.shape == (3, GRID.num_tokens, 48)
    torch.testing.assert_close(output.features["target"], levels[..., 24:])
    wanted = torch.cat([F.layer_norm(part, (24,)) for part in levels.split(24, dim=-1)], dim=-1)
    for g, (keep, hidden) in enumerate(zip(contexts, hiddens, strict=True)):
        context = module.encoder(clip, keep, levels=True)
        found = module.predictor(context, keep, hidden, GRID)
        redrawn, predicted = found[:, : keep.shape[1]], found[:, keep.shape[1] :]
        errors = (predicted - gather_tokens(wanted, hidden)).abs()
        torch.testing.assert_close(output.losses[g], errors.mean(dim=(1, 2)))
        errors = (redrawn - gather_tokens(wanted, keep)).abs()
        if distance:
            errors = errors * distance_weights(keep, hidden, GRID)[..., None]
        torch.testing.assert_close(output.losses[2 + g], 0.5 * errors.mean(dim=(1, 2)))


@torch.no_grad()
def test_without_a_weight_the_loss_is_the_plain_one(batch: Batch) -> None:
    """The weight only adds: the rows of hidden tokens are those of the plain objective."""
    dense, plain = jepa(0.5), jepa(0.0)
    shared = {n: t for n, t in dense.state_dict().items() if "proj_context" not in n}
    plain.load_state_dict(shared)
    assert plain(*batch).losses.shape == (2, 3)
    torch.testing.assert_close(plain(*batch).losses, dense(*batch).losses[:2])


def test_gradients_reach_every_trained_parameter(batch: Batch) -> None:
    module = jepa(0.5, distance=True)
    module(*batch).losses.sum().backward()
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@torch.no_grad()
def test_levels_are_evenly_spaced_outputs_each_under_its_own_norm() -> None:
    encoder = jepa(0.5).encoder
    clip = torch.randn(1, 3, 4, 16, 16)
    seen: list[torch.Tensor] = []
    for block in encoder.blocks:
        block.register_forward_hook(lambda _module, _given, found: seen.append(found))
    found = encoder(clip, levels=True)
    wanted = torch.cat([encoder.level_norms[0](seen[1]), encoder.norm(seen[3])], dim=-1)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(encoder(clip), found[..., 24:])


def test_levels_must_divide_the_depth() -> None:
    with pytest.raises(ValidationError, match="depth 4 is not a multiple of 3 levels"):
        EncoderConfig(width=24, depth=4, num_heads=2, num_levels=3)


def test_distances_need_a_weight() -> None:
    with pytest.raises(ValidationError, match="context_distance needs a context_weight"):
        JepaConfig(context_distance=True)
