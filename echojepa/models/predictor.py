"""The predictor: from context features to the features of hidden tokens, by their positions alone.

Shapes: B batch, K context tokens, M hidden tokens, D encoder width, L encoder levels, P predictor
width. Rotary positions travel with the tokens, so nothing is sorted.
"""

from __future__ import annotations

import torch
from pydantic import Field, model_validator
from torch import nn

from echojepa.config import Strict
from echojepa.models.attention import Block, Grid, RotaryConfig, initialise, rotary_table
from echojepa.models.encoder import EncoderConfig, run_blocks


class PredictorConfig(Strict):
    """Size of the predictor. The published one is 384 / 12 / 12."""

    width: int = Field(384, gt=0)
    """Channels per token (P)."""
    depth: int = Field(12, gt=0)
    """Transformer blocks."""
    num_heads: int = Field(12, gt=0)
    """Attention heads; they divide the width."""
    mlp_ratio: float = Field(4.0, gt=0)
    """Hidden width of the MLP over P, rounded to whole channels."""
    num_mask_tokens: int = Field(1, gt=0)
    """Mask tokens held. Token 0 is the one in use; published weights carry ten."""
    context_head: bool = False
    """A second output layer, for the visible tokens; objective.context_weight needs it."""
    rotary: RotaryConfig = RotaryConfig()
    """How positions enter attention."""

    @model_validator(mode="after")
    def _divisible(self) -> PredictorConfig:
        if self.width % self.num_heads or (self.width // self.num_heads) % 2:
            raise ValueError(
                f"width {self.width} over {self.num_heads} heads is not whole and even"
            )
        return self


class Predictor(nn.Module):
    """Predicts hidden token features, and with a context head those of visible tokens too."""

    def __init__(
        self,
        config: PredictorConfig,
        encoder: EncoderConfig,
        *,
        output_width: int | None = None,
        activation_checkpointing: bool = False,
    ) -> None:
        """`output_width`: of the predicted features, all levels; null: the encoder's own, L D."""
        super().__init__()
        self.config = config
        self.activation_checkpointing = activation_checkpointing
        width, features = config.width, output_width or encoder.num_levels * encoder.width
        self.predictor_embed = _embedding(encoder, width)
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
        self.predictor_proj = nn.Linear(width, features)
        if config.context_head:
            self.predictor_proj_context = nn.Linear(width, features)
        initialise(self, self.predictor_blocks)

    def forward(
        self, context: torch.Tensor, keep: torch.Tensor, hidden: torch.Tensor, grid: Grid
    ) -> torch.Tensor:
        """Predict.

        Args:
            context: encoder features of the kept tokens at all levels, [B, K, L D].
            keep: their token indices, [B, K].
            hidden: indices of the tokens to predict, [B, M].
            grid: the clip's token grid.

        Returns:
            [B, M, L D], or of the output width, in the order of `hidden`; with a context head
            [B, K + M, L D], those of `keep` first.
        """
        embedded = self.predictor_embed(context)  # [B, K, P]
        queries = self.mask_tokens[0].expand(*hidden.shape, -1)
        x = torch.cat([embedded, queries.to(embedded.dtype)], dim=1)  # [B, K + M, P]
        head_width = self.config.width // self.config.num_heads
        tokens = torch.cat([keep, hidden], dim=1)
        table = rotary_table(tokens, grid, head_width, x.dtype, self.config.rotary)
        recompute = self.activation_checkpointing
        x = run_blocks(self.predictor_blocks, x, table.cos, table.sin, recompute)
        visible, asked = x.split([keep.shape[1], hidden.shape[1]], dim=1)
        predicted: torch.Tensor = self.predictor_proj(self.predictor_norm(asked))
        if not self.config.context_head:
            return predicted
        redrawn = self.predictor_proj_context(self.predictor_norm(visible))
        return torch.cat([redrawn, predicted], dim=1)


def _embedding(encoder: EncoderConfig, width: int) -> nn.Module:
    """From encoder features to P channels; several levels are mixed first, as in V-JEPA 2.1."""
    if encoder.num_levels == 1:
        return nn.Linear(encoder.width, width)
    return nn.Sequential(
        nn.Linear(encoder.num_levels * encoder.width, encoder.width),
        nn.GELU(),
        nn.Linear(encoder.width, width),
    )
