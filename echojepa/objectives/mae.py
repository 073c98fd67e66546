"""EchoMAE: redraw the pixels of hidden tokens from the visible ones.

    error = mean over hidden tokens and their pixels of ( decoder(encoder(visible)) - pixels )^2

VideoMAE (Tong et al. 2022) on this project's encoder. The decoder is the predictor of the latent
objectives, with pixels for answers, so that nothing but the target tells them apart. Pixels are
normalised tubelet by tubelet and channel by channel (He et al. 2022, "norm_pix_loss"): without that
bright tubelets would make most of the error.

Shapes: B clips, T frames of H x W, K visible tokens, M hidden tokens, N all tokens, D width,
P = 3 x frames x side x side pixels of a tubelet, G masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from echojepa.cost import Pass
from echojepa.data.block import DataConfig
from echojepa.data.stream import StreamShape
from echojepa.models.attention import Grid
from echojepa.models.encoder import (
    EncoderConfig,
    gather_tokens,
    normalise,
    to_clips,
    to_tubelets,
)
from echojepa.objectives.masked import MaskedObjective, networks
from echojepa.objectives.masks import MaskConfig
from echojepa.objectives.objective import (
    Facts,
    ModelConfig,
    ObjectiveConfig,
    Output,
    features_alone,
)
from echojepa.objectives.token_masks import AnyMasks, TubeMaskConfig, sampler_of
from echojepa.randomness import Seeds

_LEAST_DEVIATION = 1e-6
"""Added to the deviation of a tubelet's pixels, as VideoMAE does: black ones have none."""
_NUM_ANSWERS = 4
"""Clips whose answers leave the forward pass, for pictures."""


class MaeConfig(ObjectiveConfig):
    """Masked autoencoding (EchoMAE): pixels of hidden tokens. `model.predictor` is the decoder."""

    kind: Literal["mae"] = "mae"
    masks: AnyMasks = TubeMaskConfig()
    """Which tokens the encoder sees and which are redrawn."""
    target: Literal["normalised_pixels", "pixels"] = "normalised_pixels"
    """Pixels with mean 0 and deviation 1 in every tubelet and channel, or as they are, 0 to 1."""

    def check(self, model: ModelConfig) -> None:
        """See `ObjectiveConfig`."""
        if model.predictor.context_head:
            raise ValueError(
                "model.predictor.context_head must be false: only what is hidden is redrawn"
            )
        if model.encoder.num_levels > 1:
            raise ValueError("model.encoder.num_levels must be 1: pixels have no levels")

    def check_shape(self, shape: StreamShape) -> None:
        """See `ObjectiveConfig`."""
        if isinstance(self.masks, MaskConfig):
            self.masks.check_shape(shape)

    def build(
        self, model: ModelConfig, grid: Grid, seeds: Seeds, data: DataConfig | None = None
    ) -> MaeObjective:
        """See `ObjectiveConfig`."""
        return MaeObjective(self, model, grid, seeds)


class MaeObjective(MaskedObjective):
    """Pixel prediction under masks."""

    def __init__(self, config: MaeConfig, model: ModelConfig, grid: Grid, seeds: Seeds) -> None:
        super().__init__(model, sampler_of(config.masks, grid, seeds), grid)
        self._config = config
        what = config.target.replace("_", " ")
        self.facts = Facts(
            losses=tuple(self._losses),
            num_terms=self._num_masks,
            watched={"online": ""},
            can_collapse=False,
            exported="encoder.",
            online="encoder.",
            # No `predictor`: a decoder of pixels is none that other software could read as one.
            card={
                "Encoder": "the encoder of a masked autoencoder (EchoMAE)",
                "Objective": f"mean squared error of {what}; masks: {config.masks.describe()}",
            },
        )

    def module(self, dtype: torch.dtype) -> Mae:
        """See `Objective`."""
        return Mae(self._model, self._config, dtype)

    def passes(self) -> tuple[Pass, ...]:
        """Encoder and decoder, per mask."""
        return tuple(self._prediction_passes(pixels_of_token(self._model.encoder)))

    def redrawn(
        self, pixels: torch.Tensor, samples: NDArray[np.int64], answers: torch.Tensor
    ) -> torch.Tensor:
        """See `Objective`: visible tokens as they are, hidden ones as the decoder has them.

        A normalised answer gets back the mean and the deviation of the true tubelet, which the
        network was never asked for.
        """
        hidden = torch.from_numpy(self._masks(samples)[-1].hidden)
        truth = to_tubelets(unit_pixels(pixels), self._model.encoder)  # [B, N, P]
        answers = answers.unflatten(-1, (3, -1))
        if self._config.target == "normalised_pixels":
            mean, deviation = _moments(gather_tokens(truth, hidden))
            answers = answers * deviation + mean
        index = hidden[..., None].expand(-1, -1, truth.shape[-1])
        drawn = to_clips(
            truth.scatter(1, index, answers.flatten(-2)), self.grid, self._model.encoder
        )
        return (drawn.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 4, 1)


class Mae(nn.Module):
    """Encoder and decoder."""

    def __init__(
        self, model: ModelConfig, objective: MaeConfig, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self._normalised = objective.target == "normalised_pixels"
        self._dtype = dtype
        self.encoder, self.decoder = networks(model, pixels_of_token(model.encoder))

    def forward(
        self,
        pixels: torch.Tensor,
        contexts: Sequence[torch.Tensor] = (),
        hiddens: Sequence[torch.Tensor] = (),
    ) -> Output:
        """Losses of a batch; see `Objective.module`.

        Args:
            pixels: uint8 clips, [B, T, H, W, 3].
            contexts: visible token indices per mask, G times [B, K]; none gives features of the
                encoder for the whole clip only.
            hiddens: hidden token indices per mask, G times [B, M].

        Returns:
            Losses [G, B]; features of the encoder for the last mask's context; the answers for the
            last mask's hidden tokens in the first clips.
        """
        clip = normalise(pixels, self._dtype)
        if not contexts:
            return features_alone("online", self.encoder, clip)
        truth = to_tubelets(unit_pixels(pixels), self.encoder.config)
        grid, losses = self.encoder.config.grid(*clip.shape[2:]), []
        for keep, hidden in zip(contexts, hiddens, strict=True):
            context = self.encoder(clip, keep)  # [B, K, D]
            answers = self.decoder(context, keep, hidden, grid).float()  # [B, M, P]
            wanted = self._wanted(gather_tokens(truth, hidden))
            losses.append((answers - wanted).square().mean(dim=(1, 2)))
        shown = answers[:_NUM_ANSWERS].detach().clone()  # a view would keep all of them
        return Output(torch.stack(losses), {"online": context.detach()}, shown)

    def _wanted(self, truth: torch.Tensor) -> torch.Tensor:
        """Pixels [B, M, P] from 0 to 1 to what is to be answered."""
        if not self._normalised:
            return truth
        mean, deviation = _moments(truth)
        wanted: torch.Tensor = (truth.unflatten(-1, (3, -1)) - mean) / deviation
        return wanted.flatten(-2)


class _Moments(NamedTuple):
    mean: torch.Tensor
    deviation: torch.Tensor


def _moments(truth: torch.Tensor) -> _Moments:
    """Mean and deviation of every tubelet [.., P] by channel, [.., 3, 1]."""
    channels = truth.unflatten(-1, (3, -1))
    return _Moments(
        channels.mean(dim=-1, keepdim=True),
        channels.std(dim=-1, keepdim=True) + _LEAST_DEVIATION,
    )


def unit_pixels(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 clips [B, T, H, W, 3] to float32 [B, 3, T, H, W] from 0 to 1."""
    return (pixels.float() / 255).permute(0, 4, 1, 2, 3)


def pixels_of_token(encoder: EncoderConfig) -> int:
    """Numbers that a tubelet holds (P)."""
    return 3 * encoder.tubelet_size * encoder.patch_size**2
