"""The video encoder: a ViT over tubelets with 3-D rotary positions (V-JEPA 2's architecture).

Shapes: B batch, T frames, H and W pixels, N tokens of a clip, K kept tokens, D width, L levels.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from einops import rearrange
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from echojepa.config import Strict
from echojepa.models.attention import Block, Grid, RotaryConfig, initialise, rotary_table

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""ImageNet statistics in RGB order, the ones V-JEPA 2 and EchoJEPA are trained with."""
_CLIPS, _TUBELETS = "b c (t pt) (h ph) (w pw)", "b (t h w) (c pt ph pw)"


class EncoderConfig(Strict):
    """Size of a video ViT, in numbers: ViT-L is 1024, 24, 16, 4; ViT-g 1408, 40, 22, 48/11."""

    width: int = Field(gt=0)
    """Channels per token (D)."""
    depth: int = Field(gt=0)
    """Transformer blocks."""
    num_heads: int = Field(gt=0)
    """Attention heads; they divide the width."""
    mlp_ratio: float = Field(4.0, gt=0)
    """Hidden width of the MLP over D, rounded to whole channels."""
    patch_size: int = Field(16, gt=0)
    """Pixels per side of a token."""
    tubelet_size: int = Field(2, gt=0)
    """Frames per token."""
    num_levels: int = Field(1, gt=0)
    """Depths that pretraining supervises (L), evenly spaced, the last block's among them: 4 at
    depth 24 are the outputs of blocks 6, 12, 18 and 24, as in V-JEPA 2.1. 1 is V-JEPA 2."""
    rotary: RotaryConfig = RotaryConfig()
    """How positions enter attention."""

    @model_validator(mode="after")
    def _divisible(self) -> EncoderConfig:
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.num_heads} heads")
        if (self.width // self.num_heads) % 2:
            raise ValueError(f"width per head {self.width // self.num_heads} is odd")
        if self.depth % self.num_levels:
            raise ValueError(f"depth {self.depth} is not a multiple of {self.num_levels} levels")
        return self

    def grid(self, num_frames: int, height: int, width: int) -> Grid:
        """Token grid of a clip.

        Raises:
            ValueError: the clip is not a whole number of tubelets.
        """
        sides = (num_frames, self.tubelet_size), (height, self.patch_size), (width, self.patch_size)
        if any(side % step or not side for side, step in sides):
            raise ValueError(
                f"a clip of {num_frames} x {height} x {width} is not a whole number of tubelets "
                f"of {self.tubelet_size} x {self.patch_size} x {self.patch_size}"
            )
        return Grid(*(side // step for side, step in sides))


class PatchProjection(nn.Module):
    """Linear embedding of tubelets, stored with the shape of the equivalent 3-D convolution."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        shape = (config.width, 3, config.tubelet_size, config.patch_size, config.patch_size)
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.zeros(config.width))
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, tubelets: torch.Tensor) -> torch.Tensor:
        """Flat tubelets [B, N, 3 x frames x side x side] to tokens [B, N, D]."""
        return F.linear(tubelets, self.weight.flatten(1), self.bias)


class PatchEmbed(nn.Module):
    """Holds the projection under the name that V-JEPA 2 weights use."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.proj = PatchProjection(config)

    def forward(self, tubelets: torch.Tensor) -> torch.Tensor:
        """See `PatchProjection`."""
        tokens: torch.Tensor = self.proj(tubelets)
        return tokens


class VideoEncoder(nn.Module):
    """Clips to token features."""

    def __init__(self, config: EncoderConfig, *, activation_checkpointing: bool = False) -> None:
        super().__init__()
        self.config = config
        self.activation_checkpointing = activation_checkpointing
        hidden = round(config.width * config.mlp_ratio)
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.ModuleList(
            Block(config.width, config.num_heads, hidden) for _ in range(config.depth)
        )
        self.level_norms = nn.ModuleList(
            nn.LayerNorm(config.width, eps=1e-6) for _ in range(config.num_levels - 1)
        )
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        initialise(self, self.blocks)

    def forward(
        self, clip: torch.Tensor, keep: torch.Tensor | None = None, *, levels: bool = False
    ) -> torch.Tensor:
        """Encode all tokens, or only those kept.

        Args:
            clip: normalised pixels, [B, 3, T, H, W].
            keep: token indices in the order time, row, column, [B, K]; any order, any K.
            levels: features of all levels, the shallowest first, each normed by its own layer.

        Returns:
            [B, K, D], or [B, N, D] without `keep`; with `levels` the last side is L D.
        """
        grid = self.config.grid(*clip.shape[2:])
        tubelets = to_tubelets(clip, self.config)
        if keep is None:
            tokens = torch.arange(grid.num_tokens, device=clip.device)[None]
        else:
            tokens = keep
            tubelets = gather_tokens(tubelets, keep)  # before the projection: less to compute
        x = self.patch_embed(tubelets)
        head_width = self.config.width // self.config.num_heads
        table = rotary_table(tokens, grid, head_width, x.dtype, self.config.rotary)
        stage = self.config.depth // self.config.num_levels
        found = []
        for level, norm in enumerate((*self.level_norms, self.norm)):
            blocks = list(self.blocks)[level * stage : (level + 1) * stage]
            x = run_blocks(blocks, x, table.cos, table.sin, self.activation_checkpointing)
            if levels or norm is self.norm:
                found.append(norm(x))
        return torch.cat(found, dim=-1) if len(found) > 1 else found[0]


def normalise(clips: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """uint8 clips [B, T, H, W, 3] to normalised [B, 3, T, H, W], on the clips' own device."""
    mean = torch.tensor(MEAN, device=clips.device) * 255
    std = torch.tensor(STD, device=clips.device) * 255
    return ((clips.float() - mean) / std).to(dtype).permute(0, 4, 1, 2, 3)


def to_tubelets(clips: torch.Tensor, config: EncoderConfig) -> torch.Tensor:
    """Clips [B, 3, T, H, W] to flat tubelets [B, N, 3 x frames x side x side], in token order."""
    return rearrange(clips, f"{_CLIPS} -> {_TUBELETS}", **_sides(config))


def to_clips(tubelets: torch.Tensor, grid: Grid, config: EncoderConfig) -> torch.Tensor:
    """The inverse of `to_tubelets`."""
    sides = {"t": grid.frames, "h": grid.rows, "w": grid.columns}
    return rearrange(tubelets, f"{_TUBELETS} -> {_CLIPS}", **sides, **_sides(config))


def _sides(config: EncoderConfig) -> dict[str, int]:
    return {"pt": config.tubelet_size, "ph": config.patch_size, "pw": config.patch_size}


def gather_tokens(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Pick tokens: [B, N, D] and [B, K] to [B, K, D]."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def run_blocks(
    blocks: Iterable[nn.Module],
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    recompute: bool,
) -> torch.Tensor:
    """Apply blocks in turn; with `recompute`, activations are recomputed in the backward pass.

    Never re-entrant: the encoder runs once per mask, which re-entrant checkpointing under ZeRO-3
    does not survive.
    """
    for block in blocks:
        if recompute and torch.is_grad_enabled():
            x = checkpoint(block, x, cos, sin, use_reentrant=False)
        else:
            x = block(x, cos, sin)
    return x
