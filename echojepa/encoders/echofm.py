"""EchoFM (Kim et al. 2024) as a frozen encoder: the normed tokens of its video encoder.

Clips of 32 frames, 224 px. Its decoder and its branch for single frames are not used.

Shapes: B clips, T frames, H and W pixels, N tokens, D width.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from echojepa.config import validate
from echojepa.data.sampling import ClipConfig
from echojepa.encoders.frozen import TokenFeatures
from echojepa.encoders.source import NetworkEncoder, Source
from echojepa.encoders.vit import Block, TubeletEmbed, VitConfig, attend, initialise, pixels_for
from echojepa.errors import CheckpointError
from echojepa.models.formats.files import read_tensors
from echojepa.models.formats.names import Tensors
from echojepa.models.formats.shapes import HEADS, VitShape, heads_of

_LEFT_OUT = re.compile(
    r"mask_token|decoder_(cls_token|pos_embed_(spatial|temporal|class)|prj_cls_token)"
    r"|decoder_(embed|norm|pred)\.(weight|bias)|decoder_blocks\.\d+\..+|decoder_block\..+"
    r"|prj_norm\.(weight|bias)"  # older files lack it
)
"""Decoder and frame branch."""


class EchoFmAttention(nn.Module):
    """Self-attention over [B, N, D] with queries, keys and values of their own."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self._num_heads = num_heads
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, N, D] to the same."""
        mixed = attend(self.q(x), self.k(x), self.v(x), self._num_heads)
        out: torch.Tensor = self.proj(mixed)
        return out


class EchoFmNetwork(nn.Module):
    """EchoFM's encoder, under the names of its weights."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.config = config
        width, grid = config.width, config.grid
        self.patch_embed = TubeletEmbed(config)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed_spatial = nn.Parameter(torch.empty(1, grid.num_cells, width))
        self.pos_embed_temporal = nn.Parameter(torch.empty(1, grid.frames, width))
        self.pos_embed_class = nn.Parameter(torch.empty(1, 1, width))
        self.blocks = nn.ModuleList(
            Block(config, EchoFmAttention(width, config.num_heads)) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, eps=config.eps)
        initialise(self)
        for parameter in self.parameters(recurse=False):
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, clips: torch.Tensor) -> TokenFeatures:
        """uint8 clips [B, T, H, W, 3] of any size to tokens [B, N, D], without the class token.

        Raises:
            ValueError: another number of frames.
        """
        x = self.patch_embed(pixels_for(self.config, clips))
        cells, times = self.pos_embed_spatial, self.pos_embed_temporal
        x = x + (times[:, :, None] + cells[:, None]).flatten(1, 2)
        first = (self.cls_token + self.pos_embed_class).expand(len(x), -1, -1)
        x = torch.cat([first, x], dim=1)  # [B, 1 + N, D]
        for block in self.blocks:
            x = block(x)
        return TokenFeatures(self.norm(x)[:, 1:], self.config.grid)


class EchoFmSource(Source):
    """EchoFM, from its own file."""

    kind: Literal["echofm"] = "echofm"
    location = "weights"
    weights: str
    """The `.pth` file."""
    fps: float = Field(30.0, gt=0)
    """Frame rate of the clips. EchoFM is trained on consecutive frames, at the rate of each file;
    30 is usual in echocardiography."""
    num_heads: int | None = Field(None, gt=0)
    """Attention heads; null where the width tells."""

    def load(self) -> NetworkEncoder:
        """See `EncoderSource`.

        Raises:
            CheckpointError: the weights are missing, damaged, or of another architecture.
            ConfigError: the heads do not divide the width.
        """
        source = Path(self.weights)
        tensors = {
            name: tensor
            for name, tensor in read_tensors(source, "model").items()
            if not _LEFT_OUT.fullmatch(name)
        }
        config = _config(tensors, self.num_heads, source)
        network = self.filled(lambda: EchoFmNetwork(config), tensors, self.weights)
        clip = ClipConfig(num_frames=config.num_frames, fps=self.fps, size=config.size)
        return NetworkEncoder(network, clip, self.precision)


def _config(tensors: Tensors, num_heads: int | None, source: Path) -> VitConfig:
    """The architecture; frames and side of a clip follow from the tables of positions."""
    shape = VitShape.of(tensors, "EchoFM", source)
    try:
        _, num_times, _ = tensors["pos_embed_temporal"].shape
        _, num_cells, _ = tensors["pos_embed_spatial"].shape
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"the tables of positions are missing or damaged ({error})",
            "Use EchoFM weights with separate tables for space and time.",
            str(source),
        ) from None
    tree = {
        **asdict(shape),
        "num_heads": heads_of(num_heads, HEADS, shape.width, "num_heads", source),
        "num_frames": num_times * shape.tubelet_size,
        "size": math.isqrt(num_cells) * shape.patch_size,
    }
    return validate(tree, VitConfig, str(source))
