"""Encoders of this package: exported by a run, or with random weights of a stated size."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from echojepa.config import validate
from echojepa.data.sampling import ClipConfig
from echojepa.encoders.frozen import TokenFeatures
from echojepa.encoders.source import NetworkEncoder, Source
from echojepa.models.encoder import EncoderConfig, VideoEncoder, normalise
from echojepa.models.weights import load_encoder, read_config


class OurNetwork(nn.Module):
    """A `VideoEncoder` that takes pixels as they are."""

    def __init__(self, encoder: VideoEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, clips: torch.Tensor) -> TokenFeatures:
        """uint8 clips [B, T, H, W, 3] to tokens [B, N, D]."""
        pixels = normalise(clips, torch.float32)
        return TokenFeatures(self.encoder(pixels), self.encoder.config.grid(*pixels.shape[2:]))


class OurSource(Source):
    """An encoder of this package."""

    kind: Literal["ours"] = "ours"
    location = "path"
    path: str
    """An encoder folder, as a run exports it and `echojepa import-weights` writes it. Evaluations
    also take a run folder, which stands for its newest checkpoint, and a checkpoint."""

    def load(self) -> NetworkEncoder:
        """See `EncoderSource`."""
        config, tree = read_config(Path(self.path))
        clip = validate(tree, ClipConfig, f"{self.path}/config.json")
        if self.random_seed is not None:
            return UntrainedSource(
                encoder=config, clip=clip, random_seed=self.random_seed, precision=self.precision
            ).load()
        return NetworkEncoder(OurNetwork(load_encoder(self.path)), clip, self.precision)


class UntrainedSource(Source):
    """Our architecture in any size, its weights drawn from a seed."""

    kind: Literal["untrained"] = "untrained"
    encoder: EncoderConfig
    """Its size."""
    clip: ClipConfig
    """Frames, rate and size of the clips it is shown."""
    random_seed: int = Field(0, ge=0)
    """Of the weights."""

    def load(self) -> NetworkEncoder:
        """See `EncoderSource`."""
        network = self.filled(lambda: VideoEncoder(self.encoder), {}, "")
        return NetworkEncoder(OurNetwork(network), self.clip, self.precision)
