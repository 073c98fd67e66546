"""The objective: what is compared with what, and what gradients may reach."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from support.masks import MASKS
from torch.nn import functional as F

from echojepa.models.encoder import EncoderConfig, normalise
from echojepa.models.predictor import PredictorConfig
from echojepa.objectives.jepa import Jepa, JepaConfig
from echojepa.objectives.objective import ModelConfig, twins
from echojepa.randomness import Seeds

MODEL = ModelConfig(
    encoder=EncoderConfig(width=24, depth=2, num_heads=2, patch_size=4),
    predictor=PredictorConfig(width=12, depth=1, num_heads=2, num_mask_tokens=2),
)
OBJECTIVE = JepaConfig(masks=MASKS).build(MODEL, MODEL.encoder.grid(4, 24, 24), Seeds(0))
AVERAGES = OBJECTIVE.facts.averages
Batch = tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]


def jepa(exponent: float = 1.0, norm: Literal["layer", "instance"] = "layer") -> Jepa:
    """A tiny model whose target has moved away from the online encoder."""
    config = JepaConfig(masks=MASKS, loss_exponent=exponent, target_norm=norm)
    module = Jepa(MODEL, config)
    with torch.no_grad():
        for parameter in module.target.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return module


def batch(size: int = 3) -> Batch:
    """Random clips of 4 frames of 24 x 24 pixels, and their masks."""
    pixels = torch.randint(0, 256, (size, 4, 24, 24, 3), dtype=torch.uint8)
    return pixels, *OBJECTIVE.draw(np.arange(size))


@pytest.mark.parametrize("exponent", [1.0, 2.0, 1.5])
@torch.no_grad()
def test_the_loss_is_its_definition(exponent: float) -> None:
    """Clip by clip and token by token, as the formula in the module's docstring says."""
    module = jepa(exponent)
    pixels, contexts, hiddens = batch()
    output = module(pixels, contexts, hiddens)
    assert output.losses.shape == (2, 3)
    assert output.losses.dtype == torch.float32
    grid = MODEL.encoder.grid(4, 24, 24)
    for b in range(3):
        clip = normalise(pixels[b : b + 1], torch.float32)
        features = module.target(clip)[0]
        torch.testing.assert_close(output.features["target"][b], features)
        centred = features - features.mean(dim=1, keepdim=True)
        wanted = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
        for g, (keep, hidden) in enumerate(zip(contexts, hiddens, strict=True)):
            one, other = keep[b : b + 1], hidden[b : b + 1]
            found = module.predictor(module.encoder(clip, one), one, other, grid)[0]
            distances = (found - wanted[hidden[b]]).abs() ** exponent / exponent
            torch.testing.assert_close(output.losses[g, b], distances.mean())


@torch.no_grad()
def test_instance_norm_standardises_every_channel_over_the_tokens_of_a_clip() -> None:
    module = jepa(norm="instance")
    pixels, contexts, hiddens = batch()
    clip = normalise(pixels, torch.float32)
    layered = F.layer_norm(module.target(clip), (24,))  # [B, N, D]
    wanted = (layered - layered.mean(dim=1, keepdim=True)) / (
        layered.var(dim=1, correction=0, keepdim=True) + 1e-5
    ).sqrt()
    context = module.encoder(clip, contexts[0])
    found = module.predictor(context, contexts[0], hiddens[0], MODEL.encoder.grid(4, 24, 24))
    chosen = torch.stack([w[h] for w, h in zip(wanted, hiddens[0], strict=True)])
    losses = module(pixels, contexts, hiddens).losses
    torch.testing.assert_close(losses[0], (found - chosen).abs().mean(dim=(1, 2)))


@torch.no_grad()
def test_exponent_two_is_half_the_squared_error() -> None:
    module = jepa(2.0)
    pixels, contexts, hiddens = batch()
    clip = normalise(pixels, torch.float32)
    features = module.target(clip)
    wanted = F.layer_norm(features, features.shape[-1:])
    losses = module(pixels, contexts, hiddens).losses
    context = module.encoder(clip, contexts[1])
    found = module.predictor(context, contexts[1], hiddens[1], MODEL.encoder.grid(4, 24, 24))
    chosen = torch.stack([w[h] for w, h in zip(wanted, hiddens[1], strict=True)])
    torch.testing.assert_close(losses[1].mean(), F.mse_loss(found, chosen) / 2)


def test_gradients_reach_everything_online_and_nothing_of_the_target() -> None:
    module = jepa()
    output = module(*batch())
    assert not output.features["target"].requires_grad
    output.losses.mean().backward()
    for name, parameter in module.named_parameters():
        if twins([name], AVERAGES):
            assert not parameter.requires_grad and parameter.grad is None, name
        elif name != "predictor.mask_tokens.1":
            assert name.startswith(("encoder.", "predictor."))
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_rows_are_independent_in_losses_and_gradients() -> None:
    """A row of weight 0 (padding, an unreadable clip) may hold anything."""
    module = jepa()
    pixels, contexts, hiddens = batch()
    results = []
    for filling in (pixels[2], torch.zeros_like(pixels[2])):
        module.zero_grad()
        losses = module(torch.cat([pixels[:2], filling[None]]), contexts, hiddens).losses
        (losses * torch.tensor([1.0, 1.0, 0.0])).sum().backward()
        gradients = [p.grad.clone() for p in module.parameters() if p.grad is not None]
        results.append((losses.detach(), gradients))
    (one, one_gradients), (other, other_gradients) = results
    torch.testing.assert_close(one[:, :2], other[:, :2])
    assert not torch.allclose(one[:, 2], other[:, 2])
    torch.testing.assert_close(one_gradients, other_gradients)


@torch.no_grad()
def test_without_masks_there_are_features_and_no_losses() -> None:
    module = jepa()
    pixels, contexts, hiddens = batch()
    output = module(pixels)
    assert output.losses.shape == (0, 3)
    assert set(output.features) == {OBJECTIVE.facts.exported_features}
    expected = module(pixels, contexts, hiddens).features["target"]
    assert output.features["target"].shape == (3, 2 * 6 * 6, 24)
    assert torch.equal(output.features["target"], expected)


@torch.no_grad()
def test_the_online_encoder_may_leave_the_run_instead_of_the_average() -> None:
    config = JepaConfig(masks=MASKS, exported="online")
    facts = config.build(MODEL, OBJECTIVE.grid, Seeds(0)).facts
    assert facts.exported == "encoder." and facts.averages == AVERAGES
    assert dict(facts.watched) == {"online": "", "target": "target_"}
    assert facts.exported_features == "online" and "online encoder" in facts.card["Encoder"]
    module, (pixels, contexts, hiddens) = Jepa(MODEL, config), batch()
    module.encoder.norm.weight += 1.0
    clip = normalise(pixels, torch.float32)
    alone = module(pixels)
    assert alone.features.keys() == {"online"}
    assert torch.equal(alone.features["online"], module.encoder(clip))
    features = module(pixels, contexts, hiddens).features
    assert torch.equal(features["target"], module.target(clip))
    assert torch.equal(features["online"], module.encoder(clip, contexts[-1]))


def test_lists_of_different_lengths_are_refused() -> None:
    pixels, contexts, hiddens = batch()
    with pytest.raises(ValueError, match="shorter"):
        jepa()(pixels, contexts, hiddens[:1])


def test_the_target_starts_as_a_copy_of_the_online_encoder() -> None:
    module = Jepa(MODEL, JepaConfig(masks=MASKS))
    parameters = dict(module.named_parameters())
    found = twins(parameters, AVERAGES)
    assert len(found) == len(list(module.encoder.parameters()))
    for name, online in found.items():
        assert torch.equal(parameters[name], parameters[online])
        assert parameters[name].data_ptr() != parameters[online].data_ptr()


def test_pixels_are_normalised_to_the_engines_precision() -> None:
    module = Jepa(MODEL, JepaConfig(masks=MASKS), torch.bfloat16).bfloat16()
    output = module(*batch())
    assert output.features["target"].dtype == torch.bfloat16
    assert output.losses.dtype == torch.float32
    assert output.losses.isfinite().all()


def test_activation_checkpointing_changes_no_number() -> None:
    plain = jepa()
    thrifty = Jepa(
        MODEL.model_copy(update={"activation_checkpointing": True}), JepaConfig(masks=MASKS)
    )
    thrifty.load_state_dict(plain.state_dict())
    given = batch()
    for module in (plain, thrifty):
        module(*given).losses.mean().backward()
    for one, other in zip(plain.parameters(), thrifty.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_normalise_gives_standard_colours() -> None:
    clip = torch.zeros(1, 2, 3, 5, 3, dtype=torch.uint8)
    clip[..., 0] = 255
    found = normalise(clip, torch.float32)
    assert found.shape == (1, 3, 2, 3, 5)
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]
    assert found[0, :, 1, 2, 4].tolist() == pytest.approx(expected, rel=1e-5)
    assert normalise(clip, torch.bfloat16).dtype == torch.bfloat16
