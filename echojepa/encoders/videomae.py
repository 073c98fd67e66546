"""VideoMAE (Tong et al. 2022) as a frozen encoder: pretrained, fine-tuned, or from Hugging Face.

Clips of 16 frames, 224 px. A pretrained encoder gives its tokens after the last norm. A fine-tuned
one has no such norm: it gives the feature that its classifier reads, the normed mean of the tokens.

Shapes: B clips, T frames, H and W pixels, N tokens, D width.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from echojepa.config import validate
from echojepa.data.sampling import ClipConfig
from echojepa.encoders.frozen import PooledFeatures, TokenFeatures
from echojepa.encoders.source import NetworkEncoder, Source
from echojepa.encoders.vit import Block, TubeletEmbed, VitConfig, attend, initialise, pixels_for
from echojepa.models.encoder import MEAN, STD
from echojepa.models.formats.shapes import HEADS, VitShape, heads_of
from echojepa.models.formats.videomae import Head, read_videomae

_SIZE = 224


class VideoMaeConfig(VitConfig):
    """An encoder and what follows its blocks."""

    head: Head
    """A norm of every token, a norm of their mean, or nothing."""
    pooled_eps: float = Field(1e-6, gt=0)
    """Of the norm of the mean."""


class VideoMaeAttention(nn.Module):
    """Self-attention over [B, N, D] whose keys have no bias."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self._num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, N, D] to the same."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        query, key, value = F.linear(x, self.qkv.weight, bias).chunk(3, dim=-1)
        mixed: torch.Tensor = self.proj(attend(query, key, value, self._num_heads))
        return mixed


class VideoMaeNetwork(nn.Module):
    """VideoMAE's encoder, under the names of its fine-tuned weights."""

    positions: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, config: VideoMaeConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.patch_embed = TubeletEmbed(config)
        self.blocks = nn.ModuleList(
            Block(config, VideoMaeAttention(width, config.num_heads)) for _ in range(config.depth)
        )
        if config.head == "norm":
            self.norm = nn.LayerNorm(width, eps=config.eps)
        elif config.head == "fc_norm":
            self.fc_norm = nn.LayerNorm(width, eps=config.pooled_eps)
        table = position_table(config.grid.num_tokens, width)
        self.register_buffer("positions", table, persistent=False)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD)[:, None, None, None], persistent=False)
        initialise(self)

    def forward(self, clips: torch.Tensor) -> TokenFeatures | PooledFeatures:
        """Encode uint8 clips [B, T, H, W, 3] of any size.

        Returns:
            Tokens [B, N, D]; of a fine-tuned encoder the normed mean of its tokens, [B, D].

        Raises:
            ValueError: another number of frames.
        """
        pixels = (pixels_for(self.config, clips) - self.mean) / self.std
        x = self.patch_embed(pixels) + self.positions
        for block in self.blocks:
            x = block(x)
        if self.config.head == "fc_norm":
            return PooledFeatures(self.fc_norm(x.mean(dim=1)))
        if self.config.head == "norm":
            x = self.norm(x)
        return TokenFeatures(x, self.config.grid)


def position_table(num_tokens: int, width: int) -> torch.Tensor:
    """Sines in even and cosines in odd columns, over the tokens of a whole clip, [N, D]."""
    column = torch.arange(width)
    scale = 10_000.0 ** (2 * (column // 2).double() / width)
    angle = torch.arange(num_tokens).double()[:, None] / scale
    return torch.where(column % 2 == 0, angle.sin(), angle.cos()).float()


class VideoMaeSource(Source):
    """VideoMAE: an original file, pretrained or fine-tuned, or a Hugging Face folder."""

    kind: Literal["videomae"] = "videomae"
    location = "weights"
    weights: str
    """The `.pth` file, or the folder with `config.json` and its safetensors."""
    fps: float = Field(7.5, gt=0)
    """Frame rate of the clips. VideoMAE is trained on every fourth frame of Kinetics: 7.5 of 30."""
    size: int | None = Field(None, gt=0)
    """Side of the clips in pixels; null is what a folder says, or else 224."""
    num_heads: int | None = Field(None, gt=0)
    """Attention heads; null is what a folder says, or else what the width tells."""

    def load(self) -> NetworkEncoder:
        """See `EncoderSource`.

        Raises:
            CheckpointError: the weights are missing, damaged, or of another architecture.
            ConfigError: the size or the heads do not fit them.
        """
        source = Path(self.weights)
        file = read_videomae(source)
        shape = VitShape.of(file.tensors, "VideoMAE", source)
        heads = self.num_heads or file.num_heads
        tree = {
            **asdict(shape),
            "num_heads": heads_of(heads, HEADS, shape.width, "num_heads", source),
            "num_frames": file.num_frames,
            "size": self.size or file.size or _SIZE,
            "eps": file.eps,
            "head": file.head,
            "pooled_eps": file.pooled_eps,
        }
        config = validate(tree, VideoMaeConfig, self.weights)
        network = self.filled(lambda: VideoMaeNetwork(config), file.tensors, self.weights)
        clip = ClipConfig(num_frames=config.num_frames, fps=self.fps, size=config.size)
        return NetworkEncoder(network, clip, self.precision)
