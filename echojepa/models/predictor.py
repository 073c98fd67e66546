"""The predictor: from context features to the features of hidden tokens, by their positions alone.

Shapes: B batch, K context tokens, M hidden tokens, D encoder width, P predictor width.
Rotary positions travel with the tokens, so nothing is sorted.
"""

from __future__ import annotations

import torch
from pydantic import Field, model_validator
from torch import nn

from echojepa.config import Strict
from echojepa.models.attention import Block, Grid, initialise, rotary_table
from echojepa.models.encoder import run_blocks


class PredictorConfig(Strict):
    """Size of the predictor. The published one is 384 / 12 / 12."""

    width: int = Field(384, gt=0)
    """Channels per token (P)."""
    depth: int = Field(12, gt=0)
    num_heads: int = Field(12, gt=0)
    mlp_ratio: float = Field(4.0, gt=0)
    num_mask_tokens: int = Field(1, gt=0)
    """Mask tokens held. Token 0 is the one in use; published weights carry ten."""

    @model_validator(mode="after")
    def _divisible(self) -> PredictorConfig:
        if self.width % self.num_heads or (self.width // self.num_heads) % 2:
            raise ValueError(
                f"width {self.width} over {self.num_heads} heads is not whole and even"
            )
        return self


class Predictor(nn.Module):
    """Predicts hidden token features."""

    def __init__(
        self, config: PredictorConfig, encoder_width: int, *, activation_checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        self.activation_checkpointing = activation_checkpointing
        width = config.width
        self.predictor_embed = nn.Linear(encoder_width, width)
        self.mask_tokens = nn.ParameterList(
            # Tokens beyond the first take part in nothing; they are carried, not trained.
            nn.Parameter(torch.zeros(1, 1, width), requires_grad=index == 0)
            for index in range(config.num_mask_tokens)
        )
        self.predictor_blocks = nn.ModuleList(
            Block(width, config.num_heads, round(width * config.mlp_ratio))
            for _ in range(config.depth)
        )
        self.predictor_norm = nn.LayerNorm(width, eps=1e-6)
        self.predictor_proj = nn.Linear(width, encoder_width)
        initialise(self, self.predictor_blocks)

    def forward(
        self, context: torch.Tensor, keep: torch.Tensor, hidden: torch.Tensor, grid: Grid
    ) -> torch.Tensor:
        """Predict.

        Args:
            context: encoder features of the kept tokens, [B, K, D].
            keep: their token indices, [B, K].
            hidden: indices of the tokens to predict, [B, M].
            grid: the clip's token grid.

        Returns:
            [B, M, D], in the order of `hidden`.
        """
        embedded = self.predictor_embed(context)  # [B, K, P]
        queries = self.mask_tokens[0].expand(*hidden.shape, -1)
        x = torch.cat([embedded, queries.to(embedded.dtype)], dim=1)  # [B, K + M, P]
        head_width = self.config.width // self.config.num_heads
        table = rotary_table(torch.cat([keep, hidden], dim=1), grid, head_width, x.dtype)
        recompute = self.activation_checkpointing
        x = run_blocks(self.predictor_blocks, x, table.cos, table.sin, recompute)
        x = self.predictor_norm(x[:, keep.shape[1] :])
        return self.predictor_proj(x)
