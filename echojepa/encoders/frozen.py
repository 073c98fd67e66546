"""What a frozen encoder is to those who use it: the clips it wants, and the features it gives.

Every encoder owns its preprocessing. All get the same uint8 RGB frames; the encoder's `clip` says
to which size they are resized and at which rate they are sampled.

Shapes: B clips, T frames, N tokens of a clip, D width.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from echojepa.data.sampling import ClipConfig
from echojepa.models.attention import Grid


class TokenFeatures(NamedTuple):
    """Features of every token of a batch of clips."""

    tokens: torch.Tensor
    """[B, N, D], in the order time, row, column."""
    grid: Grid
    """Of one clip; N is its number of tokens."""


class PooledFeatures(NamedTuple):
    """Features of whole clips, from encoders that give no tokens."""

    values: torch.Tensor
    """[B, D]."""


class FrozenEncoder(Protocol):
    """An encoder that is used and not trained."""

    clip: ClipConfig
    """Frames, rate and size of the clips it wants."""

    def encode(self, clips: NDArray[np.uint8]) -> TokenFeatures | PooledFeatures:
        """Features of uint8 RGB clips [B, T, H, W, 3], cut as `clip` says; no gradients."""


class EncoderSource(Protocol):
    """A small picklable description of an encoder, which any process can load."""

    @property
    def batch(self) -> int:
        """Clips per forward pass."""

    def load(self) -> FrozenEncoder:
        """The encoder on this process's device.

        Raises:
            CheckpointError: its weights are missing or damaged.
        """
