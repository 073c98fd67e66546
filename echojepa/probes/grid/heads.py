"""Probe heads, all of a grid at once: what views and clips of a sample tell together.

    x[slot] + E_view[view] + E_clip[clip]  ->  linear, MLP or attentive head  ->  fusion

The state dict of one head of the grid, `tensor[g]` of every tensor, has the names of the published
attentive probes.

Shapes: G heads, B samples, V views, C clips of a view, S = V C slots, N tokens of a slot, P slots
that are present, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from echojepa.probes.grid.attention import AttentivePooler, Seen
from echojepa.probes.grid.config import GridConfig
from echojepa.probes.grid.layers import (
    BatchedEmbedding,
    BatchedLayerNorm,
    BatchedLinear,
    initialise,
)
from echojepa.probes.grid.samples import (
    Batch,
    Samples,
    SampleShape,
    in_batches,
    read_batch,
)
from echojepa.probes.grid.target import Target

_DROPOUT = 0.1


class Design(NamedTuple):
    """What heads are built for, beside their settings."""

    grid: int
    """Number of heads, G."""
    shape: SampleShape
    """Of the samples that they are shown."""
    target: Target
    """How what they say is read."""


class Heads(nn.Module, ABC):
    """G heads of one kind."""

    def __init__(self, config: GridConfig, design: Design) -> None:
        super().__init__()
        views, clips, width = len(design.shape.views), design.shape.clips, design.shape.width
        self._late = config.fusion == "late"
        self._classes = design.target.kind == "classification"
        self._slots = (views, clips)

        def table(rows: int) -> BatchedEmbedding | None:
            wanted = config.embeddings and rows > 1
            return BatchedEmbedding(design.grid, rows, width) if wanted else None

        self.view_embed = table(views)
        self.clip_embed = table(clips)

    @abstractmethod
    def _read(self, seen: Seen) -> torch.Tensor:
        """[G, B, outputs]."""

    def forward(self, batch: Batch) -> torch.Tensor:
        """What every head says of samples: numbers, or logits of classes, [G, B, outputs].

        The batch may be on another device and in another precision. Fused late, the softmax
        of the logits is the mean probability.
        """
        parameter = next(self.parameters())
        tokens, present = batch.tokens.to(parameter), batch.present.to(parameter.device)
        offsets = self._offsets()
        if self._late:
            slots = present.nonzero()[:, 1]
            each = None if offsets is None else offsets[slots][:, None]
            said = self._read(Seen(tokens[present][None, :, None], each))  # [G, P, outputs]
            return _averaged(said, present, self._classes)
        together = None if offsets is None else offsets[None]
        if present.all():
            return self._read(Seen(tokens[None], together))
        tokens = tokens.masked_fill(~present[..., None, None], 0)  # 0 times NaN would be NaN
        return self._read(Seen(tokens[None], together, present))

    def _offsets(self) -> torch.Tensor | None:
        """What is added to the tokens of a slot, [S, G, D]."""
        views, clips = self._slots
        parts = []
        if self.view_embed is not None:
            parts.append(self.view_embed.weight.repeat_interleave(clips, dim=1))
        if self.clip_embed is not None:
            parts.append(self.clip_embed.weight.repeat(1, views, 1))
        return torch.stack(parts).sum(dim=0).transpose(0, 1) if parts else None


def _averaged(said: torch.Tensor, present: torch.Tensor, classes: bool) -> torch.Tensor:
    """Mean over present slots: of numbers, or of probabilities given as logits.

    Args:
        said: [G, P, outputs], in the order of `present.nonzero()`.
        present: [B, S].

    Returns:
        [G, B, outputs]
    """
    values = said.log_softmax(dim=-1) if classes else said
    empty = -torch.inf if classes else 0.0
    placed = values.new_full((len(said), *present.shape, said.shape[-1]), empty)
    placed[:, present] = values
    if classes:
        return placed.logsumexp(dim=2)  # of the sum: the softmax divides by the number of slots
    return placed.sum(dim=2) / present.sum(dim=1)[:, None]


def _mean_token(seen: Seen) -> torch.Tensor:
    """Mean of the tokens that are there, with what is added to them, [G or 1, B, D]."""
    slots = seen.tokens.mean(dim=3)  # [1, B, S, D]
    if seen.offsets is not None:
        slots = slots + seen.offsets.permute(2, 0, 1, 3)
    if seen.present is None:
        return slots.mean(dim=2)
    there = seen.present[..., None].to(slots.dtype)
    return (slots * there).sum(dim=2) / there.sum(dim=1)


class LinearHeads(Heads):
    """Mean of the tokens, layer norm, linear layer."""

    def __init__(self, config: GridConfig, design: Design) -> None:
        super().__init__(config, design)
        self.norm = BatchedLayerNorm(design.grid, design.shape.width)
        self.linear = BatchedLinear(design.grid, design.shape.width, design.target.num_outputs)

    def _read(self, seen: Seen) -> torch.Tensor:
        out: torch.Tensor = self.linear(self.norm(_mean_token(seen)))
        return out


class MlpHeads(Heads):
    """Mean of the tokens, layer norm, linear layer, GELU, dropout of 0.1, linear layer.

    All heads drop the same units of the same samples, drawn on the CPU from the config's seed, so
    that a head does not depend on the others of its grid, nor on the device.
    """

    def __init__(self, config: GridConfig, design: Design) -> None:
        super().__init__(config, design)
        width = design.shape.width
        self.norm = BatchedLayerNorm(design.grid, width)
        self.fc1 = BatchedLinear(design.grid, width, width)
        self.fc2 = BatchedLinear(design.grid, width, design.target.num_outputs)
        self._dropout = torch.Generator().manual_seed(config.seed)

    def _read(self, seen: Seen) -> torch.Tensor:
        hidden = F.gelu(self.fc1(self.norm(_mean_token(seen))))
        if self.training:
            kept = torch.rand(hidden.shape[1:], generator=self._dropout) >= _DROPOUT
            hidden = hidden * (kept.to(hidden) / (1 - _DROPOUT))
        out: torch.Tensor = self.fc2(hidden)
        return out


class AttentiveHeads(Heads):
    """Attentive pooling, linear layer."""

    def __init__(self, config: GridConfig, design: Design) -> None:
        super().__init__(config, design)
        width = design.shape.width
        self.pooler = AttentivePooler(design.grid, width, config.num_heads, config.depth)
        self.linear = BatchedLinear(design.grid, width, design.target.num_outputs)

    def _read(self, seen: Seen) -> torch.Tensor:
        out: torch.Tensor = self.linear(self.pooler(seen))
        return out


_KINDS: dict[str, Callable[[GridConfig, Design], Heads]] = {
    "linear": LinearHeads,
    "mlp": MlpHeads,
    "attentive": AttentiveHeads,
}


def build_heads(config: GridConfig, design: Design) -> Heads:
    """Heads with initial values of the config's seed, in its precision, on the CPU."""
    heads = _KINDS[config.head](config, design)
    generator = torch.Generator().manual_seed(config.seed)
    initialise(heads, generator)
    if isinstance(heads, AttentiveHeads):
        heads.pooler.initialise(generator)
    return heads.to(config.dtype)


@torch.no_grad()
def outputs_of(
    heads: Heads, samples: Samples, index: NDArray[np.int64], size: int
) -> Iterator[torch.Tensor]:
    """What heads say of samples, batch by batch, [G, B, outputs]; no more than a batch is held.

    Args:
        size: samples per batch at most.

    Raises:
        BadDataError: see `read_batch`.
    """
    for part in in_batches(index, size):
        yield heads(read_batch(samples, part))
