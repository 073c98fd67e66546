"""What VideoMAE and EchoFM share: a ViT over tubelets, with positions added once, at the start.

They differ in those positions, in a class token and in how attention is parametrised. The names of
the modules are those of both projects' weights, which load without renaming.

Shapes: B clips, T frames, H and W pixels, N tokens, D width.
"""

from __future__ import annotations

import torch
from einops import rearrange
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional as F

from echojepa.config import Strict
from echojepa.encoders.pixels import resized
from echojepa.models.attention import Grid, Mlp


class VitConfig(Strict):
    """Size of a video ViT whose positions are of one clip size."""

    width: int = Field(gt=0)
    """Channels per token (D)."""
    depth: int = Field(gt=0)
    """Transformer blocks."""
    hidden: int = Field(gt=0)
    """Width inside the MLP."""
    num_heads: int = Field(gt=0)
    """Attention heads; they divide the width."""
    patch_size: int = Field(gt=0)
    """Pixels per side of a token."""
    tubelet_size: int = Field(gt=0)
    """Frames per token."""
    num_frames: int = Field(gt=0)
    """Frames of a clip."""
    size: int = Field(gt=0)
    """Side of a clip in pixels."""
    eps: float = Field(1e-6, gt=0)
    """Of the norms."""

    @model_validator(mode="after")
    def _divisible(self) -> VitConfig:
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.num_heads} heads")
        if self.num_frames % self.tubelet_size or self.size % self.patch_size:
            raise ValueError(
                f"a clip of {self.num_frames} frames of {self.size} px is not a whole number of "
                f"tubelets of {self.tubelet_size} frames of {self.patch_size} px"
            )
        return self

    @property
    def grid(self) -> Grid:
        """Token grid of a clip."""
        side = self.size // self.patch_size
        return Grid(self.num_frames // self.tubelet_size, side, side)


def pixels_for(config: VitConfig, clips: torch.Tensor) -> torch.Tensor:
    """uint8 clips [B, T, H, W, 3] as pixels in 0 .. 1, resized, [B, 3, T, size, size].

    Raises:
        ValueError: they have another number of frames than the positions are for.
    """
    if clips.shape[1] != config.num_frames:
        raise ValueError(f"the clips have {clips.shape[1]} frames, not {config.num_frames}")
    return resized(clips, config.size) / 255


class TubeletEmbed(nn.Module):
    """Pixels to tokens without positions."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        tubelet = (config.tubelet_size, config.patch_size, config.patch_size)
        self.proj = nn.Conv3d(3, config.width, kernel_size=tubelet, stride=tubelet)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """[B, 3, T, H, W] to [B, N, D], in the order time, row, column."""
        tokens: torch.Tensor = self.proj(pixels)
        return tokens.flatten(2).transpose(1, 2)


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, num_heads: int
) -> torch.Tensor:
    """Attention in heads: three of [B, N, D] to [B, N, D]."""
    q, k, v = (rearrange(x, "b n (h e) -> b h n e", h=num_heads) for x in (query, key, value))
    return rearrange(F.scaled_dot_product_attention(q, k, v), "b h n e -> b n (h e)")


class Block(nn.Module):
    """Pre-norm transformer block over [B, N, D] around some self-attention."""

    def __init__(self, config: VitConfig, attention: nn.Module) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=config.eps)
        self.attn = attention
        self.norm2 = nn.LayerNorm(config.width, eps=config.eps)
        self.mlp = Mlp(config.width, config.hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, N, D] to the same."""
        x = x + self.attn(self.norm1(x))
        out: torch.Tensor = x + self.mlp(self.norm2(x))
        return out


def initialise(network: nn.Module) -> None:
    """Linear layers as masked autoencoders start (He et al. 2022): Xavier-uniform, no bias."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
