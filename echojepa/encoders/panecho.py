"""PanEcho: a ConvNeXt over images made of a clip, a transformer over the images, their mean.

Holste et al., "PanEcho: complete AI-enabled echocardiography interpretation with multi-task deep
learning" (2024), medRxiv 2024.11.16.24317431; github.com/CarDS-Yale/PanEcho (code AGPL-3.0, weights
CC BY-NC-SA 4.0). The network is put together from parts of torchvision and torch, without the
published code.

Shapes: B clips, T frames, D = 768 width.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from echojepa.data.sampling import ClipConfig
from echojepa.encoders.frozen import PooledFeatures
from echojepa.encoders.pixels import standardised
from echojepa.encoders.source import NetworkEncoder, Source
from echojepa.errors import CheckpointError
from echojepa.models.encoder import MEAN, STD
from echojepa.models.formats.files import read_tensors

SIZE = 224
_WIDTH = 768
_PREFIX = "encoder."
_IGNORED = re.compile(r"encoder\.time_encoder\.pe|[^.]+_head\..+")
"""Tensors of a file that are not wanted: the table of positions, which is computed for the length
of the clips at hand, and the heads of PanEcho's own tasks."""


class PanEchoNetwork(nn.Module):
    """The backbone of PanEcho, from pixels to one vector per clip.

    Its state dict has the published names without the prefix `encoder.`.
    """

    def __init__(self) -> None:
        super().__init__()
        # A second, of which those who load no such encoder need nothing.
        from torchvision.models import convnext_tiny  # type: ignore[import-untyped]

        images = convnext_tiny()
        images.classifier = images.classifier[:2]  # LayerNorm and flatten stay, the linear goes
        self.encoder = nn.ModuleDict({"model": images})
        layer = nn.TransformerEncoderLayer(
            _WIDTH, nhead=8, dim_feedforward=_WIDTH, dropout=0.0, batch_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, num_layers=4)

    def forward(self, clips: torch.Tensor) -> PooledFeatures:
        """uint8 clips [B, T, H, W, 3] to features [B, D]."""
        planes = standardised(
            clips, SIZE, tuple(255 * v for v in MEAN), tuple(255 * v for v in STD)
        )  # [B, 3, T, SIZE, SIZE]
        # The published code reshapes the planes of a clip, ordered by colour and then by frame,
        # into T images of 3 planes without moving the frames to the front. With 16 frames, image 0
        # is the red of frames 0, 1, 2, and image 5 the red of frame 15 and the green of frames 0
        # and 1. The weights were trained on such images: one image per frame, the natural reading,
        # gives other features.
        images = planes.reshape(len(clips), clips.shape[1], 3, SIZE, SIZE)
        return PooledFeatures(self.pool(images))

    def pool(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images [B, T, 3, SIZE, SIZE] to the features of their clips, [B, D]."""
        x = self.encoder["model"](images.flatten(0, 1)).unflatten(0, images.shape[:2])  # [B, T, D]
        x = x + sincos_table(images.shape[1]).to(x)
        pooled: torch.Tensor = self.transformer(x).mean(dim=1)
        return pooled


def sincos_table(num_positions: int) -> torch.Tensor:
    """Sines (even columns) and cosines (odd columns) of the positions, float64 [T, D].

    Source: Vaswani et al., "Attention is all you need" (2017), section 3.5.
    """
    columns = torch.arange(0, _WIDTH, 2, dtype=torch.float64)
    positions = torch.arange(num_positions, dtype=torch.float64)
    angles = torch.outer(positions, 10000.0 ** (-columns / _WIDTH))
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class PanEchoSource(Source):
    """PanEcho with its published weights, `panecho.pt`, which may not be used commercially.

    Frames are RGB. The published loader read them as BGR, which differs on colour Doppler only.
    """

    kind: Literal["panecho"] = "panecho"
    location = "weights"
    weights: str
    """The published file."""
    num_frames: int = Field(16, gt=0)
    """Frames per clip. The weights were trained on 16; positions are computed for any number."""
    fps: float = Field(30.0, gt=0)
    """Frame rate of the clips. The published code takes consecutive frames at whatever rate a video
    was stored; 30 is a usual one, and makes a clip of 16 frames last half a second."""

    def load(self) -> NetworkEncoder:
        """See `EncoderSource`."""
        tensors = _backbone(read_tensors(Path(self.weights), "weights"), self.weights)
        network = self.filled(PanEchoNetwork, tensors, self.weights)
        clip = ClipConfig(num_frames=self.num_frames, fps=self.fps, size=SIZE)
        return NetworkEncoder(network, clip, self.precision)


def _backbone(tensors: dict[str, torch.Tensor], where: str) -> dict[str, torch.Tensor]:
    """The tensors of the backbone by their names in `PanEchoNetwork`.

    Raises:
        CheckpointError: names those that belong to no part of PanEcho.
    """
    kept = {name: t for name, t in tensors.items() if not _IGNORED.fullmatch(name)}
    foreign = sorted(name for name in kept if not name.startswith(_PREFIX))
    if foreign:
        raise CheckpointError(
            f"the file holds tensors that are not of PanEcho: {foreign[:3]}",
            "Use panecho.pt as its authors published it.",
            where,
        )
    return {name.removeprefix(_PREFIX): t for name, t in kept.items()}
