"""Attention of G heads: blocks of self-attention, and pooling by one learned query.

The pooling is V-JEPA 2's attentive pooler (Bardes et al. 2024, Assran et al. 2025): cross-attention
of one query without an output projection, a residual and an MLP.

One query is linear in the tokens until the softmax, and pooling is linear again, so neither keys
nor values of tokens are ever computed:

    q . W_k (w * x + b)  =  (w * W_k' q) . x + constant        and the softmax drops the constant
    sum_n a_n (W_v (w * x_n + b) + c)  =  W_v (w * sum_n a_n x_n + b) + c        since sum_n a_n = 1

with x the normed token and w, b the norm's own. A token costs D per attention head instead of D^2,
and its norm is shared by all heads of a grid. What a head adds to tokens, e, is not shared, and yet
needs no copy of the tokens: with x and e centred,

    norm(x + e) = (x + e) / sqrt((|x|^2 + 2 x.e + |e|^2) / D + epsilon)

Shapes: G heads of a grid, X = 1 or G sets of tokens, B samples, S slots, N tokens of a slot,
L = S N, D width, H attention heads, E = D / H.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from echojepa.probes.grid.layers import EPSILON, BatchedLayerNorm, BatchedLinear, BatchedMlp, draw

_MLP_RATIO = 4


class Seen(NamedTuple):
    """What heads look at."""

    tokens: torch.Tensor
    """[X, B, S, N, D], the same for all heads, or a set for each."""
    offsets: torch.Tensor | None = None
    """What a head adds to all tokens of a slot, [B or 1, S, G, D]; null is nothing."""
    present: torch.Tensor | None = None
    """Slots that count, [B, S]; null is all."""

    def absent(self) -> torch.Tensor | None:
        """Tokens that do not count, [B, 1, L]; null is none."""
        if self.present is None:
            return None
        return ~self.present.repeat_interleave(self.tokens.shape[3], dim=1)[:, None]


class CrossAttention(nn.Module):
    """Holds the projections under the names that V-JEPA 2's probes use."""

    def __init__(self, grid: int, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = BatchedLinear(grid, width, width)
        self.kv = BatchedLinear(grid, width, 2 * width)

    def forward(self, query: torch.Tensor, norm: BatchedLayerNorm, seen: Seen) -> torch.Tensor:
        """What a query [G, 1, D] attends to among tokens that `norm` norms, [G, B, D]."""
        by_head = (2, self.num_heads, -1)
        to_keys, to_values = self.kv.weight.unflatten(1, by_head).unbind(1)  # [G, H, E, D]
        queries = self.q(query)[:, 0].unflatten(-1, by_head[1:])  # [G, H, E]
        folded = torch.einsum("ghe,ghed->ghd", queries, to_keys) * norm.weight[:, None]
        pooled = pool(folded * queries.shape[-1] ** -0.5, seen)  # [G, B, H, D]
        pooled = pooled * norm.weight[:, None, None] + norm.bias[:, None, None]
        values = torch.einsum("gbhd,ghed->gbhe", pooled, to_values).flatten(2)
        of_values = self.kv.bias.chunk(2, dim=1)[1]  # those of keys are the constant
        out: torch.Tensor = values + of_values[:, None]
        return out


def pool(queries: torch.Tensor, seen: Seen) -> torch.Tensor:
    """Mean of normed tokens, weighted by the softmax of their products with queries.

    Args:
        queries: [G, H, D].

    Returns:
        [G, B, H, D]
    """
    if seen.offsets is not None:
        return _pool_with_offsets(queries, seen, seen.offsets)
    sets, width = len(seen.tokens), seen.tokens.shape[-1]
    rows = queries.reshape(sets, 1, -1, width)  # [X, 1, G H / X, D]
    tokens = F.layer_norm(seen.tokens, (width,), eps=EPSILON).flatten(2, 3)  # [X, B, L, D]
    pooled = _softmax(rows @ tokens.mT, seen.absent()) @ tokens  # [X, B, G H / X, D]
    pooled = pooled.unflatten(2, (-1, queries.shape[1])).transpose(1, 2)  # [X, G / X, B, H, D]
    out: torch.Tensor = pooled.flatten(0, 1)
    return out


def _pool_with_offsets(queries: torch.Tensor, seen: Seen, offsets: torch.Tensor) -> torch.Tensor:
    """`pool`, where heads share the tokens and each adds its own offsets to them."""
    assert len(seen.tokens) == 1, "what a head has added to its own tokens is in them"
    heads, slots = queries.shape[:2], seen.tokens.shape[2:4]  # (G, H) and (S, N)
    tokens = seen.tokens[0] - seen.tokens[0].mean(dim=-1, keepdim=True)
    offsets = offsets - offsets.mean(dim=-1, keepdim=True)
    inverse = _inverse_deviation(tokens, offsets)  # [B, G, 1, S, N]
    flat = tokens.flatten(1, 2)  # [B, L, D]
    of_tokens = (queries.flatten(0, 1) @ flat.mT).unflatten(1, heads).unflatten(-1, slots)
    of_offsets = torch.einsum("ghd,bsgd->bghs", queries, offsets)
    scores = (of_tokens + of_offsets[..., None]) * inverse  # [B, G, H, S, N]
    shares = _softmax(scores.flatten(3).flatten(1, 2), seen.absent())  # [B, G H, L]
    weights = shares.view_as(scores) * inverse
    of_tokens = (weights.flatten(3).flatten(1, 2) @ flat).unflatten(1, heads)  # [B, G, H, D]
    of_offsets = torch.einsum("bghs,bsgd->bghd", weights.sum(dim=-1), offsets)
    out: torch.Tensor = (of_tokens + of_offsets).transpose(0, 1)
    return out


def _inverse_deviation(tokens: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """1 / the deviation of centred tokens [B, S, N, D] plus centred offsets, [B, G, 1, S, N]."""
    of_tokens = tokens.square().mean(dim=-1)[:, :, None]  # [B, S, 1, N]
    of_offsets = offsets.square().mean(dim=-1)[..., None]  # [B or 1, S, G, 1]
    both = (offsets @ tokens.mT) * (2 / tokens.shape[-1])  # [B, S, G, N]
    return (of_tokens + both + of_offsets + EPSILON).rsqrt().transpose(1, 2)[:, :, None]


def _softmax(scores: torch.Tensor, absent: torch.Tensor | None) -> torch.Tensor:
    """Over the tokens that are there; `absent` broadcasts over the scores."""
    if absent is not None:
        scores = scores.masked_fill(absent, -torch.inf)
    return scores.softmax(dim=-1)


class SelfAttention(nn.Module):
    """Multi-head self-attention of G heads."""

    def __init__(self, grid: int, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = BatchedLinear(grid, width, 3 * width)
        self.proj = BatchedLinear(grid, width, width)

    def forward(self, x: torch.Tensor, absent: torch.Tensor | None) -> torch.Tensor:
        """[G, B, L, D] to the same; `absent` as of `Seen.absent`."""
        parts = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # [G, B, L, 3, H, E]
        q, k, v = parts.permute(3, 0, 1, 4, 2, 5).flatten(1, 2)  # [G B, H, L, E] each
        mask = None
        if absent is not None:  # true is to be attended to
            mask = ~absent[None].expand(len(x), -1, -1, -1).flatten(0, 1)[:, None]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        mixed: torch.Tensor = self.proj(y.transpose(1, 2).flatten(2).view_as(x))
        return mixed


class SelfAttentionBlock(nn.Module):
    """A pre-norm transformer block of G heads."""

    def __init__(self, grid: int, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = BatchedLayerNorm(grid, width)
        self.attn = SelfAttention(grid, width, num_heads)
        self.norm2 = BatchedLayerNorm(grid, width)
        self.mlp = BatchedMlp(grid, width, _MLP_RATIO * width)

    def forward(self, x: torch.Tensor, absent: torch.Tensor | None) -> torch.Tensor:
        """[G, B, L, D] to the same."""
        x = x + self.attn(self.norm1(x), absent)
        out: torch.Tensor = x + self.mlp(self.norm2(x))
        return out


class CrossAttentionBlock(nn.Module):
    """The pooling: only what is attended to is normed, and the query is its own residual."""

    def __init__(self, grid: int, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = BatchedLayerNorm(grid, width)
        self.xattn = CrossAttention(grid, width, num_heads)
        self.norm2 = BatchedLayerNorm(grid, width)
        self.mlp = BatchedMlp(grid, width, _MLP_RATIO * width)

    def forward(self, query: torch.Tensor, seen: Seen) -> torch.Tensor:
        """A query [G, 1, D] and what it looks at to [G, B, D]."""
        x = query + self.xattn(query, self.norm1, seen)
        out: torch.Tensor = x + self.mlp(self.norm2(x))
        return out


class AttentivePooler(nn.Module):
    """Blocks of self-attention, then the pooling."""

    def __init__(self, grid: int, width: int, num_heads: int, depth: int) -> None:
        super().__init__()
        self.query_tokens = nn.Parameter(torch.zeros(grid, 1, 1, width))
        self.blocks = nn.ModuleList(
            SelfAttentionBlock(grid, width, num_heads) for _ in range(depth - 1)
        )
        self.cross_attention_block = CrossAttentionBlock(grid, width, num_heads)

    def forward(self, seen: Seen) -> torch.Tensor:
        """What is seen to [G, B, D]."""
        query = self.query_tokens[:, 0]
        if self.blocks:
            seen = self._mixed(seen)
        pooled: torch.Tensor = self.cross_attention_block(query, seen)
        return pooled

    def _mixed(self, seen: Seen) -> Seen:
        """After self-attention: a set of tokens for every head."""
        x = seen.tokens  # [1, B, S, N, D]
        if seen.offsets is not None:
            x = x + seen.offsets.permute(2, 0, 1, 3)[:, :, :, None]
        number, x = x.shape[3], x.expand(len(self.query_tokens), *x.shape[1:]).flatten(2, 3)
        for block in self.blocks:
            x = block(x, seen.absent())
        return Seen(x.unflatten(2, (-1, number)), None, seen.present)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the query, after `layers.initialise`; shrink what block l adds by sqrt(2 l)."""
        draw(self.query_tokens, generator)
        for layer, block in enumerate((*self.blocks, self.cross_attention_block), start=1):
            block.mlp.fc2.weight.div_((2 * layer) ** 0.5)
            if isinstance(block, SelfAttentionBlock):
                block.attn.proj.weight.div_((2 * layer) ** 0.5)
