"""The settings of a grid of probe heads."""

from __future__ import annotations

from itertools import product
from typing import Literal, NamedTuple

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator

from echojepa.config import Strict


class HeadSettings(NamedTuple):
    """What the heads of a grid differ in."""

    lr: float
    weight_decay: float
    warmup_epochs: int


class GridConfig(Strict):
    """Probe heads that are trained together: every learning rate with every weight decay and every
    warm-up. The default is the grid of 12 heads that EchoJEPA's authors settled on."""

    kind: Literal["grid"] = "grid"
    """A grid of heads."""
    head: Literal["linear", "mlp", "attentive"] = "attentive"
    """What a head is: `linear` and `mlp` see the mean of the tokens that are present, `attentive`
    weighs tokens by a learned query."""
    depth: int = Field(1, gt=0)
    """Of attentive heads: blocks, the last of which is the pooling. Every block before it costs
    self-attention over all tokens, in every head of the grid."""
    num_heads: int = Field(16, gt=0)
    """Of attentive heads: attention heads; they divide the width of the tokens."""
    lr: tuple[PositiveFloat, ...] = Field((5e-4, 1e-4, 5e-5, 1e-5), min_length=1)
    """Learning rates after the warm-up."""
    weight_decay: tuple[NonNegativeFloat, ...] = Field((0.001, 0.01, 0.1), min_length=1)
    """Weight decays, the same from the first step to the last, on all parameters."""
    warmup_epochs: tuple[NonNegativeInt, ...] = Field((2,), min_length=1)
    """Epochs over which the learning rate rises from zero; then it falls to zero as a cosine."""
    epochs: int = Field(15, gt=0)
    """Passes over the training samples."""
    batch: int = Field(8, gt=0)
    """Samples per step at most; an epoch is divided evenly."""
    loss: Literal["plain", "focal"] = "plain"
    """Of classes: cross-entropy, or focal with gamma 2 and alpha 1. Numbers are always learned by
    the smooth L1 loss, standardised."""
    class_weights: bool = False
    """Weigh training samples by the inverse frequency of their class."""
    fusion: Literal["early", "late"] = "early"
    """Early: a head sees the tokens of all views and clips at once. Late: it sees every clip by
    itself, and what it says of those present is averaged: numbers, or probabilities of classes."""
    embeddings: bool = True
    """Add to the tokens what a head learns of their view and of their clip's place, if there are
    several of them."""
    view_dropout: float = Field(0.0, ge=0, lt=1)
    """In training, leave out every present view with this probability; one stays at least."""
    patience: int | None = Field(None, gt=0)
    """Stop once no head has improved on val for so many epochs; null never does."""
    precision: Literal["float32", "float64"] = "float32"
    """What heads compute in."""
    seed: int = Field(0, ge=0)
    """Of initial values, order and dropout, all of which are the same for every head."""

    @model_validator(mode="after")
    def _fitting(self) -> GridConfig:
        if self.depth > 1 and self.head != "attentive":
            raise ValueError(f"depth {self.depth} is of attentive heads only")
        if max(self.warmup_epochs) >= self.epochs:
            raise ValueError(
                f"{max(self.warmup_epochs)} warm-up epochs do not fit into {self.epochs}"
            )
        return self

    @property
    def heads(self) -> tuple[HeadSettings, ...]:
        """One entry per head of the grid; the last setting changes fastest."""
        settings = product(self.lr, self.weight_decay, self.warmup_epochs)
        return tuple(map(HeadSettings._make, settings))

    @property
    def dtype(self) -> torch.dtype:
        """Of `precision`."""
        return torch.float64 if self.precision == "float64" else torch.float32
