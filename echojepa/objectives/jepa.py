"""The JEPA objective: predict the target's features of hidden tokens from the visible ones.

    loss = mean over masks and hidden tokens of | predictor(encoder(visible)) - norm(target(all)) |

V-JEPA (Bardes et al. 2024), V-JEPA 2 (Assran et al. 2025); `norm` is a layer norm without
parameters. V-JEPA 2.1's dense variant adds the same error over visible tokens, weighted, and
compares features of several depths instead of the last alone; both are off by default.

Shapes: B clips, K kept tokens, M hidden tokens, N all tokens, D width, L levels, G generators.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional as F

from echojepa.config import Strict, changeable
from echojepa.models.encoder import EncoderConfig, VideoEncoder, gather_tokens
from echojepa.models.predictor import Predictor, PredictorConfig
from echojepa.models.preprocess import normalise
from echojepa.objectives.distance import distance_weights
from echojepa.objectives.masks import MaskConfig


class ModelConfig(Strict):
    """Encoder and predictor."""

    encoder: EncoderConfig
    predictor: PredictorConfig = PredictorConfig()
    activation_checkpointing: bool = changeable(False)
    """Recompute activations in the backward pass: less memory, about a third more time."""


class JepaConfig(Strict):
    """The objective."""

    masks: MaskConfig = MaskConfig()
    loss_exponent: float = Field(1.0, gt=0)
    """p in mean |difference|^p / p; 1 is the published L1."""
    context_weight: float = Field(0.0, ge=0)
    """Weight of the same error over visible tokens (EchoJEPA 2.1: 0.5); 0 leaves them out."""
    context_distance: bool = False
    """Visible tokens count by 1 / sqrt(distance to the nearest hidden token)."""

    @model_validator(mode="after")
    def _distance_of_something(self) -> JepaConfig:
        if self.context_distance and not self.context_weight:
            raise ValueError("context_distance needs a context_weight above 0")
        return self


class JepaOutput(NamedTuple):
    """What one forward pass gives (a NamedTuple: ZeRO's hooks look into it)."""

    losses: torch.Tensor
    """Per generator and clip, [G, B], float32, with gradient: the errors over hidden tokens. With
    a context weight [2 G, B]: then the weighted errors over visible tokens. They add up."""
    target_features: torch.Tensor
    """Features of the whole clip from the target, before `norm`, [B, N, D], no gradient."""
    online_features: torch.Tensor
    """Features of the last generator's context from the encoder, [B, K, D], no gradient."""


class Jepa(nn.Module):
    """Online encoder, predictor and target as one module, so that one engine partitions them."""

    def __init__(
        self, model: ModelConfig, objective: JepaConfig, dtype: torch.dtype = torch.float32
    ) -> None:
        """`dtype` is the engine's precision, to which pixels are normalised.

        (Asking a partitioned parameter for it would gather that parameter.)
        """
        super().__init__()
        self.objective = objective
        self._dtype = dtype
        recompute = model.activation_checkpointing
        self.encoder = VideoEncoder(model.encoder, activation_checkpointing=recompute)
        self.predictor = Predictor(
            model.predictor, model.encoder, activation_checkpointing=recompute
        )
        self.target = copy.deepcopy(self.encoder).requires_grad_(False)

    def forward(
        self, pixels: torch.Tensor, contexts: list[torch.Tensor], hiddens: list[torch.Tensor]
    ) -> JepaOutput:
        """Losses of a batch.

        Args:
            pixels: uint8 clips, [B, T, H, W, 3].
            contexts: visible token indices per generator, G times [B, K_g]; none gives target
                features only.
            hiddens: hidden token indices per generator, G times [B, M_g].
        """
        clip = normalise(pixels, self._dtype)
        grid = self.encoder.config.grid(*clip.shape[2:])
        with torch.no_grad():
            features = self.target(clip, levels=True).unflatten(-1, (-1, self.encoder.config.width))
            wanted = F.layer_norm(features.float(), features.shape[-1:]).flatten(-2)  # [B, N, L D]
        over_hidden, over_visible, context = [], [], features[:, :0].flatten(-2)
        for keep, hidden in zip(contexts, hiddens, strict=True):
            context = self.encoder(clip, keep, levels=True)  # [B, K, L D]
            predicted = self.predictor(context, keep, hidden, grid).float()
            if self.objective.context_weight:
                redrawn, predicted = predicted.split([keep.shape[1], hidden.shape[1]], dim=1)
                errors = self._errors(redrawn, gather_tokens(wanted, keep))
                if self.objective.context_distance:
                    errors = errors * distance_weights(keep, hidden, grid)
                over_visible.append(self.objective.context_weight * errors.mean(dim=1))
            errors = self._errors(predicted, gather_tokens(wanted, hidden))
            over_hidden.append(errors.mean(dim=1))
        losses = [*over_hidden, *over_visible]
        together = torch.stack(losses) if losses else features.new_zeros(0, len(features))
        width = self.encoder.config.width
        return JepaOutput(together, features[..., -1, :], context.detach()[..., -width:])

    def _errors(self, found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Mean |difference|^p / p over the features of every token, [B, tokens]."""
        error = (found - wanted).abs()
        if self.objective.loss_exponent != 1.0:
            error = error**self.objective.loss_exponent / self.objective.loss_exponent
        return error.mean(dim=-1)


ONLINE_PREFIXES = ("encoder.", "predictor.")
TARGET_PREFIX = "target."


def target_twin(name: str) -> str:
    """The online parameter that a target parameter averages: target.x to encoder.x."""
    return "encoder." + name.removeprefix(TARGET_PREFIX)
