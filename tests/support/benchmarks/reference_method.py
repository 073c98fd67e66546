"""One training step as the published single-node code goes about it, for comparison.

The same numbers by other means: all tubelets are projected by a 3-D convolution and then picked;
every layer computes its sines and cosines again, for queries and for keys, repeated for every head;
the predictor sorts its tokens by position and sorts them back; the average walks over parameters in
two passes. Written for this comparison from a description, not taken from anywhere.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F

from echojepa.models.attention import Attention, Block, Grid
from echojepa.models.encoder import VideoEncoder, normalise
from echojepa.models.predictor import Predictor
from echojepa.objectives.jepa import Jepa

Masks = list[torch.Tensor]


def turned(x: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """Queries or keys of one axis [B, heads, N, E], positions repeated per head [B, heads, N]."""
    width = x.shape[-1]
    frequencies = 1.0 / 10_000 ** (torch.arange(width // 2, dtype=torch.float32) / (width / 2))
    angle = (position[..., None] * frequencies).to(x.dtype)
    sine, cosine = angle.sin().repeat(1, 1, 1, 2), angle.cos().repeat(1, 1, 1, 2)
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    return x * cosine + torch.stack((-second, first), dim=-1).flatten(-2) * sine


class PerLayerAttention(nn.Module):
    """Attention that computes its own rotary tables at every call."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.num_heads = attention.num_heads
        self.qkv, self.proj = attention.qkv, attention.proj

    def forward(self, x: torch.Tensor, tokens: torch.Tensor, grid: Grid) -> torch.Tensor:
        batch, number, width = x.shape
        parts = self.qkv(x).reshape(batch, number, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = parts[0], parts[1], parts[2]
        repeated = tokens.expand(batch, -1).unsqueeze(1).repeat(1, self.num_heads, 1)
        cell = repeated % grid.num_cells
        positions = (repeated // grid.num_cells, cell // grid.columns, cell % grid.columns)
        axis = 2 * (query.shape[-1] // 3 // 2)
        query, key = (self._all_axes(part, positions, axis) for part in (query, key))
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, number, width))

    @staticmethod
    def _all_axes(x: torch.Tensor, positions: tuple[torch.Tensor, ...], axis: int) -> torch.Tensor:
        pieces = [
            turned(x[..., i * axis : (i + 1) * axis], position)
            for i, position in enumerate(positions)
        ]
        return torch.cat([*pieces, x[..., 3 * axis :]], dim=-1)


def picked(x: torch.Tensor, masks: Masks) -> torch.Tensor:
    """Tokens of several masks, one after the other along the batch."""
    kept = []
    for mask in masks:
        kept.append(torch.gather(x, 1, mask.unsqueeze(-1).repeat(1, 1, x.shape[-1])))
    return torch.cat(kept, dim=0)


class ReferenceMethod:
    """The step of a `Jepa`, on a copy of its weights."""

    def __init__(self, jepa: Jepa, dtype: torch.dtype) -> None:
        self.jepa = copy.deepcopy(jepa)
        self._dtype = dtype
        for module in self.jepa.modules():
            if isinstance(module, Block):
                module.attn = PerLayerAttention(module.attn)  # type: ignore[assignment]
        trained = [p for p in self.jepa.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(trained, lr=1e-5, weight_decay=0.04)

    def step(self, pixels: torch.Tensor, contexts: Masks, hiddens: Masks) -> float:
        """Forward, backward, AdamW and average; returns the loss."""
        clip = normalise(pixels, self._dtype)
        grid = self.jepa.encoder.config.grid(*clip.shape[2:])
        with torch.no_grad():
            wanted = self._encode(self.jepa.target, clip, None, grid)
            wanted = F.layer_norm(wanted.float(), wanted.shape[-1:])
        losses = []
        for keep, hidden in zip(contexts, hiddens, strict=True):
            context = self._encode(self.jepa.encoder, clip, keep, grid)
            predicted = self._predict(self.jepa.predictor, context, keep, hidden, grid)
            losses.append((predicted.float() - picked(wanted, [hidden])).abs().mean())
        loss = sum(losses) / len(losses)
        assert isinstance(loss, torch.Tensor)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._average(0.99925)
        return loss.item()

    def _encode(
        self, encoder: VideoEncoder, clip: torch.Tensor, keep: torch.Tensor | None, grid: Grid
    ) -> torch.Tensor:
        projection = encoder.patch_embed.proj
        stride = projection.weight.shape[2:]
        x = F.conv3d(clip, projection.weight, projection.bias, stride=stride)
        x = x.flatten(2).transpose(1, 2)
        tokens = torch.arange(grid.num_tokens)[None]
        if keep is not None:
            x, tokens = picked(x, [keep]), keep
        return encoder.norm(self._blocks(encoder.blocks, x, tokens, grid))

    def _predict(
        self,
        predictor: Predictor,
        context: torch.Tensor,
        keep: torch.Tensor,
        hidden: torch.Tensor,
        grid: Grid,
    ) -> torch.Tensor:
        queries = predictor.mask_tokens[0].repeat(len(hidden), hidden.shape[1], 1)
        x = torch.cat([predictor.predictor_embed(context), queries], dim=1)
        tokens = torch.cat([keep, hidden], dim=1)
        order = tokens.argsort(dim=1)
        tokens = torch.stack([row[o] for row, o in zip(tokens, order, strict=True)])
        x = torch.stack([row[o] for row, o in zip(x, order, strict=True)])
        x = predictor.predictor_norm(self._blocks(predictor.predictor_blocks, x, tokens, grid))
        back = order.argsort(dim=1)
        x = torch.stack([row[o] for row, o in zip(x, back, strict=True)])
        return predictor.predictor_proj(x[:, keep.shape[1] :])

    @staticmethod
    def _blocks(
        blocks: nn.ModuleList, x: torch.Tensor, tokens: torch.Tensor, grid: Grid
    ) -> torch.Tensor:
        for block in blocks:
            assert isinstance(block, Block)
            x = x + block.attn(block.norm1(x), tokens, grid)
            x = x + block.mlp(block.norm2(x))
        return x

    @torch.no_grad()
    def _average(self, momentum: float) -> None:
        online = self.jepa.encoder.parameters()
        for slow, fast in zip(self.jepa.target.parameters(), online, strict=True):
            slow.mul_(momentum)
            slow.add_((1 - momentum) * fast.detach())
