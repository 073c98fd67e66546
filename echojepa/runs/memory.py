"""How much memory a training worker needs, from sizes alone.

Model states are exact. Activations are those that the backward pass keeps, counted per block;
buffers of communication and of the allocator come on top.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from echojepa.models.attention import Grid
from echojepa.models.encoder import EncoderConfig
from echojepa.models.predictor import PredictorConfig
from echojepa.objectives.jepa import Jepa, JepaConfig, ModelConfig

_MASTER = 4
_MOMENTS = 8
_GRADIENT = 4
"""DeepSpeed accumulates gradients in float32."""
_AVERAGE = 4


class Footprint(NamedTuple):
    """Bytes of one worker."""

    states: int
    """Weights, masters, moments, gradients and the average, split over the workers."""
    gathered: int
    """The whole weights of one block at a time."""
    activations: int
    checkpoint: int
    """Bytes of a whole checkpoint on disk, all workers together."""

    @property
    def total(self) -> int:
        """What the device must hold."""
        return self.states + self.gathered + self.activations


def footprint(
    model: ModelConfig,
    objective: JepaConfig,
    hidden: list[int],
    grid: Grid,
    cut: tuple[int, int, int],
) -> Footprint:
    """Memory of a worker.

    Args:
        hidden: hidden cells per generator.
        grid: of a training clip.
        cut: workers, clips per forward pass and worker, bytes per number in the forward pass.
    """
    world_size, micro_batch, size = cut
    with torch.device("meta"):
        module = Jepa(model, objective)
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    averaged = sum(p.numel() for p in module.target.parameters())
    master = _MASTER if size != _MASTER else 0  # in float32 the weights are their own masters
    per_trained = size + master + _MOMENTS + _GRADIENT
    states = trained * per_trained + averaged * (size + (_AVERAGE if master else 0))
    block = sum(p.numel() for p in module.encoder.blocks[0].parameters())
    tokens = [(grid.num_tokens - h * grid.frames, h * grid.frames) for h in hidden]
    kept = sum(_kept(model, context, masked) for context, masked in tokens)
    if model.activation_checkpointing:  # the block whose activations are being recomputed
        kept += max(_block(part, n) for pair in tokens for part, n in _parts(model, *pair))
    return Footprint(
        states=-(-states // world_size),
        gathered=2 * block * size,
        activations=micro_batch * size * kept,
        checkpoint=trained * (_MASTER + _MOMENTS) + averaged * _AVERAGE,
    )


def _kept(model: ModelConfig, context: int, hidden: int) -> int:
    """Numbers that the forward pass of one clip and generator keeps for the backward pass."""
    encoder = model.encoder
    patches = context * 3 * encoder.tubelet_size * encoder.patch_size**2
    found = patches + 2 * context * encoder.num_levels * encoder.width
    for part, tokens in _parts(model, context, hidden):
        every = tokens * part.width if model.activation_checkpointing else _block(part, tokens)
        found += part.depth * every
    return found


def _parts(
    model: ModelConfig, context: int, hidden: int
) -> tuple[tuple[EncoderConfig | PredictorConfig, int], ...]:
    """The transformers that a clip goes through, and with how many tokens."""
    return (model.encoder, context), (model.predictor, context + hidden)


def _block(part: EncoderConfig | PredictorConfig, tokens: int) -> int:
    """Numbers that one block keeps: nine times its tokens, and its MLP's inside twice."""
    return tokens * (9 * part.width + 2 * round(part.width * part.mlp_ratio))
