"""Supervised from scratch: the yardstick that knows the labels.

The encoder sees whole clips; a linear head for every label reads the mean of its tokens. Nothing
else differs from the other objectives, so that the same budget, stream, engine and frozen probes
say what labels are worth to an encoder of this size. Heads do not leave the run.

Shapes: B clips, T frames of H x W, N tokens, D width, L labels, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional as F

from echojepa.cost import Pass, encoder_pass
from echojepa.data.block import DataConfig
from echojepa.data.labels import LabelConfig, Target, read_targets
from echojepa.data.stream import StreamShape
from echojepa.models.attention import Grid
from echojepa.models.encoder import VideoEncoder, normalise
from echojepa.objectives.objective import (
    Drawn,
    Facts,
    ModelConfig,
    Objective,
    ObjectiveConfig,
    Output,
    features_alone,
)
from echojepa.randomness import Seeds


class SupervisedConfig(ObjectiveConfig):
    """Supervised learning from scratch. `model.predictor` is not used."""

    kind: Literal["supervised"] = "supervised"
    labels: tuple[LabelConfig, ...] = Field(min_length=1)
    """What is learnt, all at once; clips without a label count for nothing in its loss."""

    @model_validator(mode="after")
    def _different(self) -> SupervisedConfig:
        columns = [label.column for label in self.labels]
        if len(set(columns)) < len(columns):
            raise ValueError("labels names a column twice")
        return self

    def check(self, model: ModelConfig) -> None:
        """See `ObjectiveConfig`; any model can be trained."""

    def check_shape(self, shape: StreamShape) -> None:
        """See `ObjectiveConfig`; any cut will do."""

    def check_data(self, data: DataConfig) -> None:
        """See `ObjectiveConfig`."""
        read_targets(self.labels, data)

    def build(
        self, model: ModelConfig, grid: Grid, seeds: Seeds, data: DataConfig | None = None
    ) -> SupervisedObjective:
        """See `ObjectiveConfig`."""
        del seeds
        assert data is not None, "labels are those of a manifest"
        return SupervisedObjective(self, model, grid, data)


class SupervisedObjective(Objective):
    """Labels of whole clips."""

    def __init__(
        self, config: SupervisedConfig, model: ModelConfig, grid: Grid, data: DataConfig
    ) -> None:
        self.grid = grid
        self._config = config
        self._model = model
        self._data = data
        columns = [label.column for label in config.labels]
        self.facts = Facts(
            losses=tuple(columns),
            num_terms=len(columns),
            watched={"online": ""},
            can_collapse=False,
            exported="encoder.",
            online="encoder.",
            card={
                "Encoder": "an encoder that was trained with labels, from scratch",
                "Objective": f"labels {', '.join(columns)} from the mean of all tokens",
            },
        )

    @cached_property
    def _targets(self) -> list[Target]:
        return read_targets(self._config.labels, self._data)

    def module(self, dtype: torch.dtype) -> Supervised:
        """See `Objective`."""
        sizes = [len(target.classes) or 1 for target in self._targets]
        return Supervised(self._model, self._config, sizes, dtype)

    def draw(self, samples: NDArray[np.int64], clip_ids: Sequence[str] = ()) -> Drawn:
        """The labels of the clips, L times [B]; see `labels.Target`."""
        return ([torch.from_numpy(target.of(clip_ids)) for target in self._targets],)

    def hidden_tokens(self, samples: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """See `Objective`: nothing is hidden."""
        return []

    def passes(self) -> tuple[Pass, ...]:
        """The encoder over the whole clip; heads see one vector of it."""
        return (encoder_pass(self._model.encoder, self.grid.num_tokens, trained=True),)


class Supervised(nn.Module):
    """Encoder and a linear head for every label."""

    def __init__(
        self,
        model: ModelConfig,
        objective: SupervisedConfig,
        sizes: Sequence[int],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """`sizes`: outputs of every label, the number of its classes or 1."""
        super().__init__()
        self._labels = objective.labels
        self._dtype = dtype
        self.encoder = VideoEncoder(
            model.encoder, activation_checkpointing=model.activation_checkpointing
        )
        self.heads = nn.ModuleList(nn.Linear(model.encoder.width, size) for size in sizes)

    def forward(self, pixels: torch.Tensor, labels: Sequence[torch.Tensor] = ()) -> Output:
        """Losses of a batch; see `Objective.module`.

        Args:
            pixels: uint8 clips, [B, T, H, W, 3].
            labels: see `SupervisedObjective.draw`.

        Returns:
            Losses [L, B]: absolute error in deviations of a number, cross-entropy of a class, each
            times its weight; 0 where a clip has no label. Features of the encoder.
        """
        clip = normalise(pixels, self._dtype)
        if not labels:
            return features_alone("online", self.encoder, clip)
        tokens = self.encoder(clip)  # [B, N, D]
        pooled, losses = tokens.mean(dim=1), []
        for head, values, label in zip(self.heads, labels, self._labels, strict=True):
            answers = head(pooled).float()  # [B, 1 or C]
            # A clip without a label: its answer is compared with some value, and counts nothing.
            known = values.isfinite()
            wanted = torch.where(known, values, 0.0)
            if label.kind == "regression":
                errors = (answers[:, 0] - wanted).abs()
            else:
                errors = F.cross_entropy(answers, wanted.long(), reduction="none")
            losses.append(label.weight * errors * known)
        return Output(torch.stack(losses), {"online": tokens.detach()})
