"""What a training step costs, counted from sizes: floating-point operations and memory.

An objective describes its forward pass as a list of `Pass`es through transformers. From that list
follow the FLOPs of a step and the activations that the backward pass needs.

FLOPs: a multiply-add counts as two; matrix products and attention only, which is what the peaks of
GPUs are stated for. A trained pass costs three forward passes: the backward pass computes one
gradient for its inputs and one for its weights. Pixels alone need no gradient.

Memory: model states are exact. Activations are those that the backward pass keeps, counted per
block; buffers of communication and of the allocator come on top.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import nn

from echojepa.data.stream import StreamShape
from echojepa.models.attention import Block
from echojepa.models.encoder import EncoderConfig
from echojepa.models.predictor import PredictorConfig

_FORWARD_PASSES_OF_TRAINING = 3
_FLOAT32 = 4
"""Bytes of a number in masters, moments, gradients (DeepSpeed accumulates in float32), averages."""


class Pass(NamedTuple):
    """One clip's way through one transformer."""

    flops: int
    """Of the forward pass."""
    flops_on_pixels: int
    """Of these, the first layer's, if its inputs are pixels."""
    trained: bool
    """Whether a backward pass follows."""
    depth: int
    num_tokens: int
    width: int
    hidden_width: int
    """Of the blocks' MLPs."""
    num_kept_outside: int
    """Numbers kept for the backward pass outside the blocks: inputs and outputs."""

    @property
    def num_kept_by_block(self) -> int:
        """Numbers that one block keeps: nine times its tokens, and the inside of its MLP twice."""
        return self.num_tokens * (9 * self.width + 2 * self.hidden_width)


def encoder_pass(config: EncoderConfig, num_tokens: int, *, trained: bool) -> Pass:
    """`num_tokens` tokens of one clip through the encoder."""
    tubelet = 3 * config.tubelet_size * config.patch_size**2
    embedding = 2 * num_tokens * tubelet * config.width
    return Pass(
        flops=embedding + _blocks_flops(config, num_tokens),
        flops_on_pixels=embedding,
        trained=trained,
        depth=config.depth,
        num_tokens=num_tokens,
        width=config.width,
        hidden_width=round(config.width * config.mlp_ratio),
        num_kept_outside=num_tokens * (tubelet + 2 * config.num_levels * config.width),
    )


def predictor_pass(
    config: PredictorConfig,
    encoder: EncoderConfig,
    num_context: int,
    num_hidden: int,
    output_width: int | None = None,
) -> Pass:
    """The context and the hidden tokens of one clip through the predictor, which is trained.

    Args:
        output_width: of the predicted features, all levels; null is the encoder's own.
    """
    embedding = encoder.width * config.width
    if encoder.num_levels > 1:
        embedding += encoder.num_levels * encoder.width**2
    num_tokens = num_context + num_hidden
    answered = num_tokens if config.context_head else num_hidden
    heads = config.width * (output_width or encoder.num_levels * encoder.width)
    projections = 2 * (num_context * embedding + answered * heads)
    return Pass(
        flops=projections + _blocks_flops(config, num_tokens),
        flops_on_pixels=0,
        trained=True,
        depth=config.depth,
        num_tokens=num_tokens,
        width=config.width,
        hidden_width=round(config.width * config.mlp_ratio),
        num_kept_outside=0,
    )


def flops_per_clip(passes: Iterable[Pass]) -> int:
    """Forward and backward passes of one clip in a training step."""
    return sum(
        _FORWARD_PASSES_OF_TRAINING * p.flops - p.flops_on_pixels if p.trained else p.flops
        for p in passes
    )


def _blocks_flops(config: EncoderConfig | PredictorConfig, num_tokens: int) -> int:
    """Forward pass of the blocks over tokens that all attend to each other."""
    hidden = round(config.width * config.mlp_ratio)
    # Per token: q, k, v and the output projection are 4 D^2, the two layers of the MLP 2 D H.
    linear = 2 * num_tokens * config.width * (4 * config.width + 2 * hidden)
    # Scores and their weighted sum are D multiply-adds each for every pair of tokens.
    attention = 4 * num_tokens**2 * config.width
    return config.depth * (linear + attention)


class Parameters(NamedTuple):
    """How many numbers a module holds, by what is done with them."""

    num_trained: int
    num_averaged: int
    """Moving averages of trained ones."""
    num_frozen: int
    """Neither trained nor averaged."""
    num_in_largest_block: int


def count_parameters(module: nn.Module, averages: Iterable[str]) -> Parameters:
    """Count the parameters of a module, which may be on the meta device.

    Args:
        averages: prefixes of the names of averages.
    """
    prefixes = tuple(averages)
    named = list(module.named_parameters())
    blocks = [m for m in module.modules() if isinstance(m, Block)]
    trained = sum(p.numel() for _, p in named if p.requires_grad)
    averaged = sum(p.numel() for name, p in named if name.startswith(prefixes))
    return Parameters(
        num_trained=trained,
        num_averaged=averaged,
        num_frozen=sum(p.numel() for _, p in named) - trained - averaged,
        num_in_largest_block=max(
            (sum(p.numel() for p in block.parameters()) for block in blocks), default=0
        ),
    )


class Footprint(NamedTuple):
    """Bytes of one worker."""

    states: int
    """Weights, masters, moments, gradients and averages, split over the workers."""
    gathered: int
    """The whole weights of the block that computes, and of the one that is fetched meanwhile."""
    activations: int
    checkpoint: int
    """Bytes of a whole checkpoint on disk, all workers together."""

    @property
    def total(self) -> int:
        """What the device must hold."""
        return self.states + self.gathered + self.activations


def footprint(
    parameters: Parameters,
    passes: Sequence[Pass],
    shape: StreamShape,
    *,
    bytes_per_number: int,
    recompute: bool,
) -> Footprint:
    """Memory of a worker.

    Args:
        bytes_per_number: of weights and activations in the forward pass.
        recompute: activations inside blocks are computed again in the backward pass.
    """
    # Per trained parameter: the weight, its float32 master (float32 weights are their own), two
    # moments of Adam and the accumulated gradient. Per average: the weight and its float32 master.
    # What is frozen is a weight and nothing else; a checkpoint does not hold it.
    master = _FLOAT32 if bytes_per_number != _FLOAT32 else 0
    per_trained = bytes_per_number + master + 2 * _FLOAT32 + _FLOAT32
    per_average = bytes_per_number + master
    states = parameters.num_trained * per_trained + parameters.num_averaged * per_average
    states += parameters.num_frozen * bytes_per_number
    stored = parameters.num_trained * 3 + parameters.num_averaged  # weight and two moments; average
    kept = _num_kept([p for p in passes if p.trained], recompute=recompute)
    return Footprint(
        states=-(-states // shape.world_size),
        gathered=2 * parameters.num_in_largest_block * bytes_per_number,
        activations=shape.micro_batch * bytes_per_number * kept,
        checkpoint=stored * _FLOAT32,
    )


def _num_kept(trained: Sequence[Pass], *, recompute: bool) -> int:
    """Numbers that the forward pass of one clip keeps for the backward pass."""
    if not recompute:
        return sum(p.num_kept_outside + p.depth * p.num_kept_by_block for p in trained)
    # The input of every block stays, and the inside of the one that is being computed again.
    inputs = sum(p.num_kept_outside + p.depth * p.num_tokens * p.width for p in trained)
    return inputs + max((p.num_kept_by_block for p in trained), default=0)
