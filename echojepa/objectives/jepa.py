"""The JEPA objective: predict the target's features of hidden tokens from the visible ones.

    loss = mean over masks and hidden tokens of | predictor(encoder(visible)) - norm(target(all)) |

V-JEPA (Bardes et al. 2024), V-JEPA 2 (Assran et al. 2025); `norm` is a layer norm without
parameters. V-JEPA 2.1's dense variant adds the same error over visible tokens, weighted, and
compares features of several depths instead of the last alone; both are off by default.

Shapes: B clips, K kept tokens, M hidden tokens, N all tokens, D width, L levels, G generators.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional as F

from echojepa.cost import Pass, encoder_pass, predictor_pass
from echojepa.data.stream import StreamShape
from echojepa.errors import ConfigError
from echojepa.models.attention import Grid
from echojepa.models.encoder import VideoEncoder, gather_tokens, normalise
from echojepa.models.predictor import Predictor
from echojepa.objectives.distance import distance_weights
from echojepa.objectives.masks import MaskConfig, MaskSampler
from echojepa.objectives.objective import (
    Drawn,
    Facts,
    ModelConfig,
    Objective,
    ObjectiveConfig,
    Output,
)
from echojepa.randomness import Seeds


class JepaConfig(ObjectiveConfig):
    """Latent prediction: of the features that an average of the encoder gives for hidden tokens."""

    kind: Literal["jepa"] = "jepa"
    masks: MaskConfig = MaskConfig()
    """Which tokens the encoder sees and which it must predict."""
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

    def check(self, model: ModelConfig) -> None:
        """See `ObjectiveConfig`."""
        if (self.context_weight > 0) != model.predictor.context_head:
            raise ValueError(
                "objective.context_weight and model.predictor.context_head need each other"
            )

    def check_shape(self, shape: StreamShape) -> None:
        """See `ObjectiveConfig`; only `truncate_group` restricts the cut."""
        group = self.masks.truncate_group
        sides = (shape.global_batch, shape.origin)
        if group and (group % shape.micro_batch or any(side % group for side in sides)):
            raise ConfigError(
                f"truncate_group {group} does not fit a micro-batch of {shape.micro_batch} and a "
                f"global batch of {shape.global_batch}",
                "Choose optimizer.max_micro_batch so that micro-batches divide the group, and the "
                "group divides the global batch.",
                "objective.masks.truncate_group",
            )

    def build(self, model: ModelConfig, grid: Grid, seeds: Seeds) -> JepaObjective:
        """See `ObjectiveConfig`."""
        return JepaObjective(self, model, grid, seeds)


class JepaObjective(Objective):
    """Latent prediction under masks, with an EMA target."""

    def __init__(self, config: JepaConfig, model: ModelConfig, grid: Grid, seeds: Seeds) -> None:
        self.grid = grid
        self._config = config
        self._model = model
        self._masks = MaskSampler(config.masks, grid, seeds)
        generators = range(len(config.masks.generators))
        losses = [f"mask_{i}" for i in generators]
        if config.context_weight:
            losses += [f"context_{i}" for i in generators]
        blocks = [f"{g.num_blocks} blocks of {g.spatial_scale}" for g in config.masks.generators]
        self.facts = Facts(
            losses=tuple(losses),
            num_terms=len(generators),
            watched={"target": "", "online": "online_"},
            exported="target.",
            online="encoder.",
            averages={"target.": "encoder."},
            predictor="predictor.",
            card={
                "Encoder": "the EMA target of a JEPA pretraining run",
                "Objective": f"L{config.loss_exponent:g} on layer-normed target features; "
                f"masks: {'; '.join(blocks)}",
            },
        )

    def module(self, dtype: torch.dtype) -> Jepa:
        """See `Objective`."""
        return Jepa(self._model, self._config, dtype)

    def draw(self, samples: NDArray[np.int64]) -> Drawn:
        """Visible and hidden token indices, G times [B, K_g] and G times [B, M_g]."""
        masks = self._masks(samples)
        return (
            [torch.from_numpy(mask.context) for mask in masks],
            [torch.from_numpy(mask.hidden) for mask in masks],
        )

    def hidden_tokens(self, samples: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """See `Objective`."""
        return [mask.hidden for mask in self._masks(samples)]

    def passes(self) -> tuple[Pass, ...]:
        """The target over the whole clip; encoder and predictor per generator."""
        encoder = self._model.encoder
        found = [encoder_pass(encoder, self.grid.num_tokens, trained=False)]
        for hidden_cells in self._masks.num_hidden:
            hidden = hidden_cells * self.grid.frames
            context = self.grid.num_tokens - hidden
            found.append(encoder_pass(encoder, context, trained=True))
            found.append(predictor_pass(self._model.predictor, encoder, context, hidden))
        return tuple(found)


class Jepa(nn.Module):
    """Online encoder, predictor and target as one module, so that one engine partitions them."""

    def __init__(
        self, model: ModelConfig, objective: JepaConfig, dtype: torch.dtype = torch.float32
    ) -> None:
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
        self,
        pixels: torch.Tensor,
        contexts: Sequence[torch.Tensor] = (),
        hiddens: Sequence[torch.Tensor] = (),
    ) -> Output:
        """Losses of a batch; see `Objective.module`.

        Args:
            pixels: uint8 clips, [B, T, H, W, 3].
            contexts: visible token indices per generator, G times [B, K_g]; none gives target
                features only.
            hiddens: hidden token indices per generator, G times [B, M_g].

        Returns:
            Losses [G, B]: the errors over hidden tokens. With a context weight [2 G, B]: then the
            weighted errors over visible tokens. Features of the target for the whole clip, before
            the norm, and of the encoder for the last generator's context.
        """
        clip = normalise(pixels, self._dtype)
        grid = self.encoder.config.grid(*clip.shape[2:])
        width = self.encoder.config.width
        with torch.no_grad():
            features = self.target(clip, levels=True).unflatten(-1, (-1, width))
            wanted = F.layer_norm(features.float(), features.shape[-1:]).flatten(-2)  # [B, N, L D]
        found = {"target": features[..., -1, :]}
        over_hidden, over_visible = [], []
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
            found["online"] = context.detach()[..., -width:]
        losses = [*over_hidden, *over_visible]
        return Output(
            torch.stack(losses) if losses else features.new_zeros(0, len(features)), found
        )

    def _errors(self, found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Mean |difference|^p / p over the features of every token, [B, tokens]."""
        error = (found - wanted).abs()
        if self.objective.loss_exponent != 1.0:
            error = error**self.objective.loss_exponent / self.objective.loss_exponent
        return error.mean(dim=-1)
