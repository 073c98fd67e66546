"""Probe heads one at a time, as the published code has them: plain torch, nothing of ours in it.

Written for comparison from a description: every head norms, projects and attends by itself.
Parameters have the published names.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


def split(x: torch.Tensor, num_heads: int) -> torch.Tensor:
    """[B, N, D] to [B, heads, N, E]."""
    return x.reshape(*x.shape[:2], num_heads, -1).transpose(1, 2)


def joined(x: torch.Tensor) -> torch.Tensor:
    """The way back."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


class Attention(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        q, k, v = (split(part, self.num_heads) for part in self.qkv(x).chunk(3, dim=-1))
        scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~keep[:, None, None], -math.inf)
        return self.proj(joined(scores.softmax(dim=-1) @ v))


class Block(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = Attention(width, num_heads), Mlp(width)

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x), keep)
        return x + self.mlp(self.norm2(x))


class CrossAttention(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q, self.kv = nn.Linear(width, width), nn.Linear(width, 2 * width)

    def forward(self, query: torch.Tensor, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        k, v = (split(part, self.num_heads) for part in self.kv(x).chunk(2, dim=-1))
        q = split(self.q(query), self.num_heads)
        return joined(F.scaled_dot_product_attention(q, k, v, attn_mask=keep[:, None, None]))


class CrossBlock(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.xattn, self.mlp = CrossAttention(width, num_heads), Mlp(width)

    def forward(self, query: torch.Tensor, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        y = query + self.xattn(query, self.norm1(x), keep)
        return y + self.mlp(self.norm2(y))


class Pooler(nn.Module):
    def __init__(self, width: int, num_heads: int, depth: int) -> None:
        super().__init__()
        self.query_tokens = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(Block(width, num_heads) for _ in range(depth - 1))
        self.cross_attention_block = CrossBlock(width, num_heads)

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x, keep)
        query = self.query_tokens.expand(len(x), -1, -1)
        return self.cross_attention_block(query, x, keep)[:, 0]


class Plain(nn.Module):
    """Embeddings of views and clips, where there are several."""

    def __init__(self, width: int, views: int, clips: int) -> None:
        super().__init__()
        self.slots = (views, clips)
        if views > 1:
            self.view_embed = nn.Embedding(views, width)
        if clips > 1:
            self.clip_embed = nn.Embedding(clips, width)

    def embedded(self, tokens: torch.Tensor) -> torch.Tensor:
        """[B, S, N, D] to the same."""
        views, clips = self.slots
        for slot in range(views * clips):
            vector = torch.zeros_like(tokens[0, 0, 0])
            if views > 1:
                vector = vector + self.view_embed.weight[slot // clips]
            if clips > 1:
                vector = vector + self.clip_embed.weight[slot % clips]
            mine = torch.arange(views * clips)[:, None, None] == slot
            tokens = tokens + mine * vector
        return tokens


class PlainAttentive(Plain):
    def __init__(
        self, width: int, num_outputs: int, num_heads: int, depth: int, slots: tuple[int, int]
    ) -> None:
        super().__init__(width, *slots)
        self.pooler = Pooler(width, num_heads, depth)
        self.linear = nn.Linear(width, num_outputs)

    def forward(self, tokens: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """[B, S, N, D] and [B, S] to [B, outputs]."""
        keep = present.repeat_interleave(tokens.shape[2], dim=1)
        return self.linear(self.pooler(self.embedded(tokens).flatten(1, 2), keep))


class PlainMean(Plain):
    """Linear, or with one hidden layer."""

    def __init__(
        self, width: int, num_outputs: int, slots: tuple[int, int], *, hidden: bool
    ) -> None:
        super().__init__(width, *slots)
        self.norm = nn.LayerNorm(width)
        if hidden:
            self.fc1, self.fc2 = nn.Linear(width, width), nn.Linear(width, num_outputs)
        else:
            self.linear = nn.Linear(width, num_outputs)

    def forward(
        self, tokens: torch.Tensor, present: torch.Tensor, kept: torch.Tensor | None = None
    ) -> torch.Tensor:
        """`kept` are the hidden units that a dropout of 0.1 leaves."""
        keep = present[..., None, None] * torch.ones_like(tokens[..., :1])
        mean = (self.embedded(tokens) * keep).sum(dim=(1, 2)) / keep.sum(dim=(1, 2))
        x = self.norm(mean)
        if hasattr(self, "linear"):
            return self.linear(x)
        x = F.gelu(self.fc1(x))
        return self.fc2(x if kept is None else x * kept / 0.9)
