"""Attention with 3-D rotary positions, and the pre-norm transformer block built on it.

Shapes: B batch, N tokens, D width, E = D / heads.

The rotary tables of a token set are computed once and shared by all layers and heads.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from echojepa.config import Strict

_BASE = 10_000.0


class RotaryConfig(Strict):
    """How positions turn queries and keys. Weights need exactly what they were trained with."""

    frequencies: Literal["tiled", "paired"] = "tiled"
    """Channels of a pair are neighbours (2i, 2i+1). `paired` turns both by one angle. `tiled` is
    V-JEPA 2 (Assran et al. 2025), which lays its frequencies out as [f0 .. fn, f0 .. fn], so that
    the two channels of a pair turn by different angles; V-JEPA 2.1 has paired ones."""
    span: int | None = Field(None, gt=1)
    """Rows and columns of any clip are stretched over 0 .. span - 1 (V-JEPA 2.1: 16); null counts
    them as they are."""


class Grid(NamedTuple):
    """Tokens of a clip along time, rows and columns. Token order is time, row, column."""

    frames: int
    rows: int
    columns: int

    @property
    def num_cells(self) -> int:
        """Tokens of one time step."""
        return self.rows * self.columns

    @property
    def num_tokens(self) -> int:
        """Tokens of the whole clip."""
        return self.frames * self.num_cells


class Rotary(NamedTuple):
    """Cosines and sines of a token set, each [B or 1, 1, N, E]."""

    cos: torch.Tensor
    sin: torch.Tensor


def _positions(tokens: torch.Tensor, grid: Grid) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Time step, row and column of token indices, each of their shape."""
    cell = tokens % grid.num_cells
    return tokens // grid.num_cells, cell // grid.columns, cell % grid.columns


def rotary_table(
    tokens: torch.Tensor,
    grid: Grid,
    width: int,
    dtype: torch.dtype,
    rotary: RotaryConfig,
) -> Rotary:
    """Tables for token indices.

    Args:
        tokens: indices into the grid, [B, N] (B may be 1).
        grid: the clip's own grid.
        width: channels per head, E. Each axis turns 2 * (E // 3 // 2) of them, the rest none.
        dtype: of the tables; angles are computed in float32.
    """
    per_axis = 2 * (width // 3 // 2)
    half = torch.arange(per_axis // 2, device=tokens.device, dtype=torch.float32)
    frequencies = _BASE ** (-half / (per_axis / 2))
    time, *spatial = (p.float() for p in _positions(tokens, grid))
    if rotary.span is not None:
        last = rotary.span - 1
        sides = (grid.rows, grid.columns)
        spatial = [p * (last / max(n - 1, 1)) for p, n in zip(spatial, sides, strict=True)]
    angles = [p[..., None] * frequencies for p in (time, *spatial)]
    if rotary.frequencies == "tiled":
        angles = [angle.repeat(1, 1, 2) for angle in angles]
    else:
        angles = [angle.repeat_interleave(2, dim=-1) for angle in angles]
    rest = torch.zeros(*tokens.shape, width - 3 * per_axis, device=tokens.device)
    angle = torch.cat([*angles, rest], dim=-1)[:, None]  # [B, 1, N, E]
    return Rotary(angle.cos().to(dtype), angle.sin().to(dtype))


def rotate(x: torch.Tensor, table: Rotary) -> torch.Tensor:
    """Turn queries or keys [B, heads, N, E] by their positions."""
    pairs = x.unflatten(-1, (-1, 2))
    turned = torch.stack((-pairs[..., 1], pairs[..., 0]), dim=-1).flatten(-2)
    return x * table.cos + turned * table.sin


class Attention(nn.Module):
    """Multi-head self-attention over [B, N, D]."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """[B, N, D] to the same; `cos` and `sin` as in `Rotary`."""
        y = F.scaled_dot_product_attention(*self.queries_keys_values(x, Rotary(cos, sin)))
        mixed: torch.Tensor = self.proj(y.transpose(1, 2).flatten(-2))
        return mixed

    def queries_keys_values(
        self, x: torch.Tensor, table: Rotary
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """[B, N, D] to turned queries, turned keys and values, [B, heads, N, E] each."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return rotate(q, table), rotate(k, table), v


class Mlp(nn.Module):
    """Two linear layers with a GELU between, over [B, N, D].

    timm has the same layer under the same names, and tests compare with it; importing it here would
    add three seconds and 200 MB to every process that touches a model.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, N, D] to the same."""
        out: torch.Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """Pre-norm transformer block over [B, N, D]."""

    def __init__(self, width: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, hidden)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """[B, N, D] to the same; `cos` and `sin` as in `Rotary`."""
        x = x + self.attn(self.norm1(x), cos, sin)
        out: torch.Tensor = x + self.mlp(self.norm2(x))
        return out


def initialise(module: nn.Module, blocks: nn.ModuleList) -> None:
    """V-JEPA 2's start: truncated normal of deviation 0.02, residual outputs shrunk by depth.

    Runs on whole parameters, before ZeRO partitions them.
    """
    for child in module.modules():
        if isinstance(child, nn.Linear):
            nn.init.trunc_normal_(child.weight, std=0.02)
            nn.init.zeros_(child.bias)
    for index, block in enumerate(blocks, start=1):
        assert isinstance(block, Block)
        with torch.no_grad():
            block.attn.proj.weight.div_((2.0 * index) ** 0.5)
            block.mlp.fc2.weight.div_((2.0 * index) ** 0.5)
