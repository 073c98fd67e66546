"""What every objective with masks shares: its networks, its masks, and what both cost.

Shapes: B clips, K kept tokens, M hidden tokens, one pair of K and M per mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from echojepa.cost import Pass, encoder_pass, predictor_pass
from echojepa.models.attention import Grid
from echojepa.models.encoder import VideoEncoder
from echojepa.models.predictor import Predictor
from echojepa.objectives.objective import Drawn, ModelConfig, Objective
from echojepa.objectives.token_masks import Sampler


def networks(model: ModelConfig, output_width: int | None = None) -> tuple[VideoEncoder, Predictor]:
    """Encoder and predictor with fresh initial values; for the width see `Predictor`."""
    recompute = model.activation_checkpointing
    encoder = VideoEncoder(model.encoder, activation_checkpointing=recompute)
    predictor = Predictor(
        model.predictor,
        model.encoder,
        output_width=output_width,
        activation_checkpointing=recompute,
    )
    return encoder, predictor


class MaskedObjective(Objective):
    """The encoder sees a part of the clip, the predictor answers for the rest, mask by mask."""

    def __init__(self, model: ModelConfig, masks: Sampler, grid: Grid) -> None:
        self.grid = grid
        self._model = model
        self._masks = masks
        self._num_masks = len(masks.num_hidden_tokens)
        self._losses = [f"mask_{i}" for i in range(self._num_masks)]

    def draw(self, samples: NDArray[np.int64], clip_ids: Sequence[str] = ()) -> Drawn:
        """Visible and hidden token indices, per mask [B, K] and [B, M]."""
        masks = self._masks(samples)
        return (
            [torch.from_numpy(mask.context) for mask in masks],
            [torch.from_numpy(mask.hidden) for mask in masks],
        )

    def hidden_tokens(self, samples: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """See `Objective`."""
        return [mask.hidden for mask in self._masks(samples)]

    def _prediction_passes(self, output_width: int | None = None) -> list[Pass]:
        """Encoder and predictor, per mask; for the width see `cost.predictor_pass`."""
        encoder, found = self._model.encoder, []
        for hidden in self._masks.num_hidden_tokens:
            context = self.grid.num_tokens - hidden
            found.append(encoder_pass(encoder, context, trained=True))
            found.append(
                predictor_pass(self._model.predictor, encoder, context, hidden, output_width)
            )
        return found
