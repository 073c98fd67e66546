"""What an objective is: the seam between a way of learning and everything that runs it.

A config builds an `Objective`; the objective builds the module that an engine trains, draws what
the module needs beside the pixels, and states `Facts`: what its losses are called, which of its
parameters are averages of which, which part leaves the run as the encoder, what deserves watching.
Loop, engines, checkpoints, monitor and export know an objective by these alone.

Shapes: B clips, T frames, H and W pixels, L losses, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from echojepa.config import Strict, changeable
from echojepa.cost import Pass
from echojepa.data.block import DataConfig
from echojepa.data.stream import StreamShape
from echojepa.models.attention import Grid
from echojepa.models.encoder import EncoderConfig, VideoEncoder
from echojepa.models.predictor import PredictorConfig
from echojepa.randomness import Seeds

Drawn = tuple[list[torch.Tensor], ...]
"""What a forward pass needs beside the pixels: lists of tensors [B, ...], or of one row per group
of clips, on the host."""


class ModelConfig(Strict):
    """Encoder and predictor."""

    encoder: EncoderConfig
    """The network that pretraining is for."""
    predictor: PredictorConfig = PredictorConfig()
    """The network that predicts what is hidden; where that is pixels, the decoder."""
    activation_checkpointing: bool = changeable(False)
    """Recompute activations in the backward pass: less memory, about a third more time."""


class Output(NamedTuple):
    """What one forward pass gives (a NamedTuple: ZeRO's hooks look into it)."""

    losses: torch.Tensor
    """Per loss and clip, [L, B], float32, with gradient; in the order of `Facts.losses`."""
    features: dict[str, torch.Tensor]
    """Token features by the names of `Facts.watched`, [B, tokens, D], no gradient."""
    answers: torch.Tensor | None = None
    """Pixels that were predicted for the hidden tokens of the first clips under the last mask,
    [b, M, P] without gradient, for `Objective.redrawn`; null where no pixels are predicted."""


@dataclass(frozen=True)
class Facts:
    """What a run must know of its objective."""

    losses: tuple[str, ...]
    """Names of the losses; the metric of loss x is loss_x."""
    num_terms: int
    """What is minimised is the sum of the losses over this number."""
    watched: Mapping[str, str]
    """Features that statistics are made of: their name, and the prefix of their metrics. The first
    are those of the encoder that leaves the run."""
    can_collapse: bool
    """Whether features that say nothing would make the losses small: the monitor guards how spread
    out the watched ones are."""
    exported: str
    """Prefix of the parameters that leave the run as the encoder."""
    online: str
    """Prefix of the encoder that is trained; the same as `exported`, unless that is an average."""
    averages: Mapping[str, str] = field(default_factory=dict)
    """Prefix of parameters that are moving averages, and of those they average, name by name."""
    frozen: tuple[str, ...] = ()
    """Prefixes of parameters that come from elsewhere and never change: `Objective.complete` fills
    them, and checkpoints do without them."""
    predictor: str | None = None
    """Prefix of the predictor, if there is one."""
    card: Mapping[str, str] = field(default_factory=dict)
    """Lines of the model card: what this encoder is, and what it was trained to do."""

    @property
    def guarded(self) -> tuple[str, ...]:
        """Prefixes of the metrics that a collapse would show in."""
        return tuple(self.watched.values()) if self.can_collapse else ()

    @property
    def exported_features(self) -> str:
        """Name of the features of the encoder that leaves the run."""
        return next(iter(self.watched))


class Objective(ABC):
    """One way to learn from clips without labels."""

    facts: Facts
    grid: Grid
    """Token grid of a training clip."""

    @abstractmethod
    def module(self, dtype: torch.dtype) -> nn.Module:
        """The whole module with fresh initial values from PyTorch's generator.

        Its `forward(pixels, *drawn)` takes uint8 clips [B, T, H, W, 3] and what `draw` gives, and
        returns an `Output`. Without `drawn` there are no losses, and the only features are those of
        the encoder that leaves the run, for all tokens of the clip.

        Args:
            dtype: the engine's precision, to which pixels are normalised. (Asking a partitioned
                parameter for it would gather that parameter.)
        """

    def complete(self, module: nn.Module) -> None:
        """Fill the parameters that `Facts.frozen` names; a module without any is complete.

        Raises:
            CheckpointError: they are not what the run began with, or cannot be read.
        """
        del module

    @abstractmethod
    def draw(self, samples: NDArray[np.int64], clip_ids: Sequence[str] = ()) -> Drawn:
        """What the module needs for these global sample indices [B], and for them alone.

        Args:
            clip_ids: whose they are, [B]; needed by those who learn from labels.
        """

    @abstractmethod
    def hidden_tokens(self, samples: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Token indices hidden from the encoder, one array [B, M] per mask; for pictures."""

    def redrawn(
        self, pixels: torch.Tensor, samples: NDArray[np.int64], answers: torch.Tensor
    ) -> torch.Tensor:
        """Clips as the network draws them, for pictures.

        Args:
            pixels: uint8 clips on the host, [b, T, H, W, 3].
            samples: their global indices, [b].
            answers: `Output.answers` of these clips, on the host.

        Returns:
            As `pixels`.
        """
        raise NotImplementedError("only objectives that predict pixels give answers")

    @abstractmethod
    def passes(self) -> tuple[Pass, ...]:
        """The ways of one clip through transformers in a training step."""


class ObjectiveConfig(Strict, ABC):
    """The settings of one kind of objective."""

    @property
    def clips_together(self) -> int:
        """Consecutive samples that one micro-batch must hold, because a loss compares them."""
        return 1

    @abstractmethod
    def check(self, model: ModelConfig) -> None:
        """Raise `ValueError` if the objective cannot train this model."""

    @abstractmethod
    def check_shape(self, shape: StreamShape) -> None:
        """Raise `ConfigError` if the objective cannot train on batches that are cut like this."""

    def sources(self) -> tuple[str, ...]:
        """Folders of the encoders it learns from: whom they have seen, a run has seen as well."""
        return ()

    def bound(self, model: ModelConfig) -> Self:
        """The same settings with the files they name looked at: absolute paths and digests.

        Raises:
            UserError: a file is missing, is not the one that was stated, or does not fit the model.
        """
        del model
        return self

    def check_data(self, data: DataConfig) -> None:
        """Raise `ManifestError` if the clips of a run lack what the objective learns from."""
        del data

    @abstractmethod
    def build(
        self, model: ModelConfig, grid: Grid, seeds: Seeds, data: DataConfig | None = None
    ) -> Objective:
        """The objective; raises `ConfigError` if it does not fit the grid.

        Args:
            data: of the run; needed by those who learn from labels.
        """


def features_alone(name: str, encoder: VideoEncoder, clip: torch.Tensor) -> Output:
    """What a forward pass without draws gives: features of all tokens, and no losses.

    Args:
        name: of the features, see `Facts.watched`.
        encoder: the one that leaves the run.
        clip: normalised pixels, [B, 3, T, H, W].
    """
    with torch.no_grad():
        features = encoder(clip)
    return Output(features.new_zeros(0, len(features)), {name: features})


def twins(names: Iterable[str], averages: Mapping[str, str]) -> dict[str, str]:
    """Every average among parameter names, and the parameter that it averages.

    >>> twins(["target.norm", "encoder.norm"], {"target.": "encoder."})
    {'target.norm': 'encoder.norm'}
    """
    return {
        name: online + name.removeprefix(average)
        for name in names
        for average, online in averages.items()
        if name.startswith(average)
    }
