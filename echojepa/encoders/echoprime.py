"""EchoPrime's video encoder: torchvision's MViT v2 small with a last layer of 512.

Vukadinovic et al., "EchoPrime: a multi-video view-informed vision-language model for comprehensive
echocardiography interpretation" (2024), arXiv:2410.09704; weights: github.com/echonet/EchoPrime
(academic use; its LICENSE and its README differ). The one-hot code of the view that EchoPrime
appends comes from another network and is not part of the features here.

Shapes: B clips, T frames, D = 512 width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from echojepa.data.sampling import ClipConfig
from echojepa.encoders.frozen import PooledFeatures
from echojepa.encoders.pixels import standardised
from echojepa.encoders.source import NetworkEncoder, Source
from echojepa.models.formats.files import read_tensors

FRAMES = 16
SIZE = 224
_WIDTH = 512
_MEAN = (29.110628, 28.076836, 29.096405)
_STD = (47.989223, 46.456997, 47.20083)
"""Of EchoPrime's own training videos, R, G, B in units of 0 to 255."""


def video_encoder() -> nn.Module:
    """The MViT, from normalised pixels [B, 3, FRAMES, SIZE, SIZE] to [B, D]; published names."""
    # A second, of which those who load no such encoder need nothing.
    from torchvision.models.video import mvit_v2_s  # type: ignore[import-untyped]

    encoder: nn.Module = mvit_v2_s(num_classes=_WIDTH)
    return encoder


class EchoPrimeNetwork(nn.Module):
    """EchoPrime's video encoder, from pixels to one vector per clip."""

    def __init__(self, encoder: nn.Module) -> None:
        """Wrap what `video_encoder` makes."""
        super().__init__()
        self.encoder = encoder

    def forward(self, clips: torch.Tensor) -> PooledFeatures:
        """uint8 clips [B, T, H, W, 3], T <= FRAMES, to features [B, D]."""
        pixels = standardised(clips, SIZE, _MEAN, _STD)
        # What a clip lacks is 0 after normalising, the mean colour, and not black frames before.
        whole = pixels.new_zeros(len(clips), 3, FRAMES, SIZE, SIZE)
        whole[:, :, : clips.shape[1]] = pixels
        return PooledFeatures(self.encoder(whole))


class EchoPrimeSource(Source):
    """EchoPrime's video encoder with its published weights, `echo_prime_encoder.pt`.

    The published loader also cuts a tenth off each side of the central square; frames are taken
    whole here, as by every other encoder.
    """

    kind: Literal["echoprime"] = "echoprime"
    location = "weights"
    weights: str
    """The published file, out of `model_data.zip`."""
    num_frames: int = Field(FRAMES, gt=0, le=FRAMES)
    """Frames per clip, at most 16; missing ones are filled with the mean colour."""
    fps: float = Field(15.0, gt=0)
    """Frame rate of the clips. The published code takes every second frame at whatever rate a video
    was stored; 15 is that of a video at 30, and makes a clip of 16 frames last a second."""
    batch: int = Field(4, gt=0)
    """Clips per forward pass. Few, because each takes 0.3 GB while it is encoded in float32, and on
    GPUs up to twice that where `torch.backends.cudnn.benchmark` is switched on."""

    def load(self) -> NetworkEncoder:
        """See `EncoderSource`."""
        encoder = self.filled(video_encoder, read_tensors(Path(self.weights)), self.weights)
        clip = ClipConfig(num_frames=self.num_frames, fps=self.fps, size=SIZE)
        return NetworkEncoder(EchoPrimeNetwork(encoder), clip, self.precision)
