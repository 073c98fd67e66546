"""An objective without target, predictor or masks: say how bright a clip is. 35 lines of seam."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from echojepa.cost import Pass, encoder_pass
from echojepa.data.block import DataConfig
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
)
from echojepa.pretrain import PretrainConfig
from echojepa.randomness import Seeds


class BrightnessModule(nn.Module):
    def __init__(self, model: ModelConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype, self.encoder = dtype, VideoEncoder(model.encoder)
        self.head = nn.Linear(model.encoder.width, 1)

    def forward(self, pixels: torch.Tensor, *drawn: list[torch.Tensor]) -> Output:
        tokens = self.encoder(normalise(pixels, self.dtype))  # [B, N, D]
        said = self.head(tokens.mean(dim=1))[:, 0].float()
        errors = (said - pixels.float().mean(dim=(1, 2, 3, 4)) / 255).abs()
        return Output(errors[None], {"encoder": tokens.detach()})


class Brightness(Objective):
    facts = Facts(
        losses=("brightness",),
        num_terms=1,
        watched={"encoder": ""},
        can_collapse=False,
        exported="encoder.",
        online="encoder.",
    )

    def __init__(self, model: ModelConfig, grid: Grid) -> None:
        self.model, self.grid = model, grid

    def module(self, dtype: torch.dtype) -> nn.Module:
        return BrightnessModule(self.model, dtype)

    def draw(self, samples: NDArray[np.int64], clip_ids: Sequence[str] = ()) -> Drawn:
        return ()

    def hidden_tokens(self, samples: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return []

    def passes(self) -> tuple[Pass, ...]:
        return (encoder_pass(self.model.encoder, self.grid.num_tokens, trained=True),)


class BrightnessConfig(ObjectiveConfig):
    def check(self, model: ModelConfig) -> None: ...
    def check_shape(self, shape: StreamShape) -> None: ...
    def build(
        self, model: ModelConfig, grid: Grid, seeds: Seeds, data: DataConfig | None = None
    ) -> Brightness:
        return Brightness(model, grid)


class BrightnessRun(PretrainConfig):
    objective: BrightnessConfig = BrightnessConfig()
