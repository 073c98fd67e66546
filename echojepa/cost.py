"""Floating-point operations of the networks, counted from their sizes.

A multiply-add counts as two. Matrix products and attention only: what GPU peaks are stated for.
"""

from __future__ import annotations

from echojepa.models.encoder import EncoderConfig
from echojepa.models.predictor import PredictorConfig


def transformer_flops(num_tokens: int, width: int, depth: int, mlp_ratio: float) -> int:
    """Forward pass of the blocks over `num_tokens` that all attend to each other."""
    hidden = round(width * mlp_ratio)
    linear = 2 * num_tokens * width * (4 * width + 2 * hidden)
    attention = 4 * num_tokens**2 * width
    return depth * (linear + attention)


def encoder_flops(config: EncoderConfig, num_tokens: int) -> int:
    """Forward pass of the encoder over `num_tokens` tokens of one clip."""
    tubelet = 3 * config.tubelet_size * config.patch_size**2
    embedding = 2 * num_tokens * tubelet * config.width
    return embedding + transformer_flops(num_tokens, config.width, config.depth, config.mlp_ratio)


def predictor_flops(
    config: PredictorConfig, encoder: EncoderConfig, num_context: int, num_hidden: int
) -> int:
    """Forward pass of the predictor for one clip."""
    embedding = encoder.width * config.width
    if encoder.num_levels > 1:
        embedding += encoder.num_levels * encoder.width**2
    tokens = num_context + num_hidden
    answered = tokens if config.context_head else num_hidden
    heads = config.width * encoder.num_levels * encoder.width
    projections = 2 * (num_context * embedding + answered * heads)
    return projections + transformer_flops(tokens, config.width, config.depth, config.mlp_ratio)
