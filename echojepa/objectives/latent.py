"""What objectives of latent prediction share: masks, the predictor, and the error of its answers.

    error = mean over masks and hidden tokens of | predictor(encoder(visible)) - norm(target(all)) |

V-JEPA (Bardes et al. 2024), V-JEPA 2 (Assran et al. 2025); `norm` has no parameters. V-JEPA 2.1's
dense variant adds the same error over visible tokens, weighted, and compares features of several
depths instead of the last alone; both are off by default. Where the target comes from is what tells
the objectives apart: see `jepa` and `frozen_target`.

Shapes: B clips, K kept tokens, M hidden tokens, N all tokens, D width, L levels, G generators.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional as F

from echojepa.data.stream import StreamShape
from echojepa.models.attention import Grid
from echojepa.models.encoder import gather_tokens
from echojepa.objectives.distance import distance_weights
from echojepa.objectives.masked import MaskedObjective, networks
from echojepa.objectives.masks import MaskConfig, MaskSampler
from echojepa.objectives.objective import ModelConfig, ObjectiveConfig
from echojepa.randomness import Seeds


class LatentConfig(ObjectiveConfig):
    """Masks, and the error of what is predicted."""

    masks: MaskConfig = MaskConfig()
    """Which tokens the encoder sees and which it must predict."""
    target_norm: Literal["layer", "instance"] = "layer"
    """What is done to target features. `layer`: a layer norm of every token, as published.
    `instance`: then every channel is standardised over the tokens of the clip, so that what all
    tokens of a clip share, and channels that vary little, cannot be the easy part of the task
    (data2vec, Baevski et al. 2022, for speech)."""
    loss_exponent: float = Field(1.0, gt=0)
    """p in mean |difference|^p / p; 1 is the published L1."""
    context_weight: float = Field(0.0, ge=0)
    """Weight of the same error over visible tokens (EchoJEPA 2.1: 0.5); 0 leaves them out."""
    context_distance: bool = False
    """Visible tokens count by 1 / sqrt(distance to the nearest hidden token)."""

    @model_validator(mode="after")
    def _distance_of_something(self) -> LatentConfig:
        if self.context_distance and not self.context_weight:
            raise ValueError("context_distance needs a context_weight above 0")
        return self

    def check(self, model: ModelConfig) -> None:
        """See `ObjectiveConfig`."""
        if (self.context_weight > 0) != model.predictor.context_head:
            raise ValueError(
                "objective.context_weight and model.predictor.context_head need each other"
            )

    def check_shape(self, shape: StreamShape) -> None:
        """See `ObjectiveConfig`."""
        self.masks.check_shape(shape)


class LatentObjective(MaskedObjective):
    """Draws masks; the rest of an objective is up to its target."""

    def __init__(self, config: LatentConfig, model: ModelConfig, grid: Grid, seeds: Seeds) -> None:
        super().__init__(model, MaskSampler(config.masks, grid, seeds), grid)
        if config.context_weight:
            self._losses += [f"context_{i}" for i in range(self._num_masks)]
        self._error_text = (
            f"L{config.loss_exponent:g} on {config.target_norm}-normed target features; masks: "
            f"{config.masks.describe()}"
        )


class Prediction(NamedTuple):
    """What came of predicting the features of a batch."""

    losses: list[torch.Tensor]
    """G times [B]: the errors over hidden tokens. With a context weight 2 G times: then the
    weighted errors over visible tokens."""
    contexts: list[torch.Tensor]
    """Features of the visible tokens at all levels, G times [B, K_g, L D]."""


class LatentModule(nn.Module):
    """Online encoder and predictor, trained to match the features of a target."""

    def __init__(
        self,
        model: ModelConfig,
        objective: LatentConfig,
        dtype: torch.dtype,
        output_width: int | None = None,
    ) -> None:
        """`output_width`: see `Predictor`."""
        super().__init__()
        self._latent = objective
        self._dtype = dtype
        self.encoder, self.predictor = networks(model, output_width)

    def predict(
        self,
        clip: torch.Tensor,
        features: torch.Tensor,
        contexts: Sequence[torch.Tensor],
        hiddens: Sequence[torch.Tensor],
    ) -> Prediction:
        """Predict features of hidden tokens from visible ones, and compare.

        Args:
            clip: normalised pixels, [B, 3, T, H, W].
            features: of the target, [B, N, L, D'], where D' may be another width than D.
            contexts: visible token indices per generator, G times [B, K_g].
            hiddens: hidden token indices per generator, G times [B, M_g].
        """
        wanted = self._normed(features.float())  # [B, N, L D']
        grid = self.encoder.config.grid(*clip.shape[2:])
        over_hidden, over_visible, seen = [], [], []
        for keep, hidden in zip(contexts, hiddens, strict=True):
            context = self.encoder(clip, keep, levels=True)  # [B, K, L D]
            predicted = self.predictor(context, keep, hidden, grid).float()
            if self._latent.context_weight:
                redrawn, predicted = predicted.split([keep.shape[1], hidden.shape[1]], dim=1)
                errors = self._errors(redrawn, gather_tokens(wanted, keep))
                if self._latent.context_distance:
                    errors = errors * distance_weights(keep, hidden, grid)
                over_visible.append(self._latent.context_weight * errors.mean(dim=1))
            errors = self._errors(predicted, gather_tokens(wanted, hidden))
            over_hidden.append(errors.mean(dim=1))
            seen.append(context)
        return Prediction([*over_hidden, *over_visible], seen)

    def _normed(self, features: torch.Tensor) -> torch.Tensor:
        """Target features [B, N, L, D'] as they are compared, [B, N, L D']."""
        normed = F.layer_norm(features, features.shape[-1:]).flatten(-2)
        if self._latent.target_norm == "layer":
            return normed
        return F.instance_norm(normed.transpose(1, 2)).transpose(1, 2)

    def _errors(self, found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Mean |difference|^p / p over the features of every token, [B, tokens]."""
        error = (found - wanted).abs()
        if self._latent.loss_exponent != 1.0:
            error = error**self._latent.loss_exponent / self._latent.loss_exponent
        return error.mean(dim=-1)


def last_level(features: torch.Tensor, width: int) -> torch.Tensor:
    """The deepest level of features [B, K, L D]: [B, K, D]."""
    return features[..., -width:]
