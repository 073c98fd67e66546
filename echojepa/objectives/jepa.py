"""The JEPA objective: predict the target's features of hidden tokens from the visible ones.

    loss = mean over masks and hidden tokens of | predictor(encoder(visible)) - norm(target(all)) |

V-JEPA (Bardes et al. 2024), V-JEPA 2 (Assran et al. 2025); `norm` is a layer norm without
parameters. Shapes: B clips, K kept tokens, M hidden tokens, N all tokens, D width, G generators.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from echojepa.config import Strict, changeable
from echojepa.models.encoder import EncoderConfig, VideoEncoder, gather_tokens
from echojepa.models.predictor import Predictor, PredictorConfig
from echojepa.models.preprocess import normalise
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


class JepaOutput(NamedTuple):
    """What one forward pass gives (a NamedTuple: ZeRO's hooks look into it)."""

    losses: torch.Tensor
    """Per generator and clip, [G, B], float32, with gradient."""
    target_features: torch.Tensor
    """Features of the whole clip from the target, before `norm`, [B, N, D], no gradient."""


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
            model.predictor, model.encoder.width, activation_checkpointing=recompute
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
            features = self.target(clip)  # [B, N, D]
            wanted = F.layer_norm(features.float(), features.shape[-1:])
        losses = []
        for keep, hidden in zip(contexts, hiddens, strict=True):
            context = self.encoder(clip, keep)  # [B, K, D]
            predicted = self.predictor(context, keep, hidden, grid).float()  # [B, M, D]
            error = (predicted - gather_tokens(wanted, hidden)).abs()
            if self.objective.loss_exponent != 1.0:
                error = error**self.objective.loss_exponent / self.objective.loss_exponent
            losses.append(error.mean(dim=(1, 2)))
        together = torch.stack(losses) if losses else features.new_zeros(0, len(features))
        return JepaOutput(together, features)


ONLINE_PREFIXES = ("encoder.", "predictor.")
TARGET_PREFIX = "target."


def target_twin(name: str) -> str:
    """The online parameter that a target parameter averages: target.x to encoder.x."""
    return "encoder." + name.removeprefix(TARGET_PREFIX)
