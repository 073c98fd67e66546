"""Numbers of the public V-JEPA 2 / EchoJEPA code, reproduced by our modules from its weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from support.paths import DATA
from torch.nn import functional as F

from echojepa.models.attention import Grid
from echojepa.models.encoder import EncoderConfig, VideoEncoder, gather_tokens
from echojepa.models.predictor import Predictor, PredictorConfig

OUTPUTS = {"rtol": 0.0, "atol": 1e-4}


@dataclass(frozen=True)
class Golden:
    """One case: our modules with its weights, its inputs and outputs, its loss and gradients."""

    encoder: VideoEncoder
    target: VideoEncoder
    predictor: Predictor
    grid: Grid
    tensors: dict[str, torch.Tensor]
    facts: dict[str, Any]

    def predict(self, mask: int) -> torch.Tensor:
        """Our prediction for mask 1 or 2, through our own context features."""
        keep, hidden = self.tensors[f"e{mask}"], self.tensors[f"q{mask}"]
        context = self.encoder(self.tensors["x"], keep)
        return self.predictor(context, keep, hidden, self.grid)

    def loss(self) -> torch.Tensor:
        """Mean over both masks of the L1 distance to the normed target features."""
        with torch.no_grad():
            features = self.target(self.tensors["x"])
            wanted = F.layer_norm(features, features.shape[-1:])
        errors = [
            (self.predict(mask) - gather_tokens(wanted, self.tensors[f"q{mask}"])).abs().mean()
            for mask in (1, 2)
        ]
        return torch.stack(errors).mean()


def stripped(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict without the wrappers' prefixes."""
    assert all(name.startswith("module.backbone.") for name in state)
    return {name.removeprefix("module.backbone."): tensor for name, tensor in state.items()}


@pytest.fixture(params=["vjepa2_tiny", "vjepa2_giantlike"])
def golden(request: pytest.FixtureRequest) -> Golden:
    """A case, strictly loaded: every name and shape fits."""
    facts = json.loads((DATA / f"{request.param}.json").read_text())
    saved = torch.load(DATA / f"{request.param}.pt", weights_only=True)
    config = EncoderConfig(
        width=facts["embed_dim"],
        depth=facts["depth"],
        num_heads=facts["num_heads"],
        mlp_ratio=facts["mlp_ratio"],
        patch_size=facts["patch"],
        tubelet_size=facts["tubelet"],
    )
    small = PredictorConfig(
        width=facts["pred_dim"],
        depth=facts["pred_depth"],
        num_heads=facts["pred_heads"],
        num_mask_tokens=facts["num_mask_tokens"],
    )
    encoder, target = VideoEncoder(config), VideoEncoder(config)
    predictor = Predictor(small, config)
    encoder.load_state_dict(stripped(saved["encoder"]), strict=True)
    target.load_state_dict(stripped(saved["target_encoder"]), strict=True)
    predictor.load_state_dict(stripped(saved["predictor"]), strict=True)
    arrays = np.load(DATA / f"{request.param}.npz")
    tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    grid = config.grid(facts["frames"], facts["crop"], facts["crop"])
    return Golden(encoder, target, predictor, grid, tensors, facts)


@torch.no_grad()
def test_encoders(golden: Golden) -> None:
    given = golden.tensors
    x = given["x"]
    torch.testing.assert_close(golden.encoder(x), given["full"], **OUTPUTS)
    torch.testing.assert_close(golden.target(x), given["full_target"], **OUTPUTS)
    torch.testing.assert_close(golden.encoder(x, given["e1"]), given["ctx1"], **OUTPUTS)
    torch.testing.assert_close(golden.encoder(x, given["e2"]), given["ctx2"], **OUTPUTS)


@torch.no_grad()
def test_another_clip_size(golden: Golden) -> None:
    given = golden.tensors
    torch.testing.assert_close(golden.encoder(given["x_rect"]), given["full_rect"], **OUTPUTS)


@torch.no_grad()
@pytest.mark.parametrize("mask", [1, 2])
def test_predictor(golden: Golden, mask: int) -> None:
    torch.testing.assert_close(
        golden.predict(mask), golden.tensors[f"pred{mask}_token0"], **OUTPUTS
    )


@torch.no_grad()
@pytest.mark.parametrize("mask", [1, 2])
def test_spare_mask_tokens_are_the_published_ones(golden: Golden, mask: int) -> None:
    wanted = golden.tensors[f"pred{mask}_token1"]
    assert not torch.allclose(golden.predict(mask), wanted, **OUTPUTS)
    golden.predictor.mask_tokens[0].copy_(golden.predictor.mask_tokens[1])
    torch.testing.assert_close(golden.predict(mask), wanted, **OUTPUTS)


def test_loss_and_gradients_of_a_training_step(golden: Golden) -> None:
    loss = golden.loss()
    assert loss.item() == pytest.approx(golden.facts["loss"], abs=1e-5)
    assert loss.item() == pytest.approx(float(golden.tensors["loss"]), abs=1e-5)
    loss.backward()
    found = {
        f"backbone.{name}": parameter.grad.norm().item()
        for module in (golden.encoder, golden.predictor)
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }
    expected: dict[str, float] = golden.facts["grad_norms"]
    assert found.keys() == expected.keys()
    assert all(parameter.grad is None for parameter in golden.target.parameters())
    wrong = {
        name: (found[name], norm)
        for name, norm in expected.items()
        if abs(found[name] - norm) > 1e-4 * norm + 1e-7
    }
    assert not wrong
