"""Encoders of this package: exported by a run, or with random weights to stand beside one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from echojepa.data.sampling import ClipConfig
from echojepa.encoders.frozen import TokenFeatures
from echojepa.models.encoder import EncoderConfig, VideoEncoder, normalise
from echojepa.models.weights import load_encoder


class OurEncoder:
    """A `VideoEncoder` as a `FrozenEncoder`."""

    def __init__(self, encoder: VideoEncoder, clip: ClipConfig) -> None:
        encoder = encoder.eval().requires_grad_(False)
        self._encoder = encoder.cuda() if torch.cuda.is_available() else encoder
        self.clip = clip

    @torch.inference_mode()
    def encode(self, clips: NDArray[np.uint8]) -> TokenFeatures:
        """See `FrozenEncoder`."""
        device = next(self._encoder.parameters()).device
        pixels = normalise(torch.from_numpy(clips).to(device), torch.float32)
        return TokenFeatures(self._encoder(pixels), self._encoder.config.grid(*pixels.shape[2:]))


@dataclass(frozen=True)
class ExportedSource:
    """An encoder folder; see `EncoderSource`."""

    folder: str
    clip: ClipConfig

    def load(self) -> OurEncoder:
        """See `EncoderSource`."""
        return OurEncoder(load_encoder(self.folder), self.clip)


@dataclass(frozen=True)
class RandomSource:
    """An encoder whose weights are drawn from a seed; see `EncoderSource`."""

    config: EncoderConfig
    clip: ClipConfig
    seed: int = 0

    def load(self) -> OurEncoder:
        """See `EncoderSource`."""
        torch.manual_seed(self.seed)
        return OurEncoder(VideoEncoder(self.config), self.clip)
