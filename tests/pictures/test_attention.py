"""Attention maps: the weights are those of the block, whatever part of them is computed at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import VJEPA2Model

from echojepa.errors import ConfigError
from echojepa.models.attention import RotaryConfig
from echojepa.models.encoder import EncoderConfig, VideoEncoder, normalise
from echojepa.models.formats.export_weights import export_huggingface
from echojepa.models.predictor import Predictor, PredictorConfig
from echojepa.models.weights import Companions, save_encoder
from echojepa.pictures.attention import (
    BlockInput,
    attention_maps,
    attention_rows,
    block_inputs,
)

SIZES = EncoderConfig(width=48, depth=3, num_heads=4, patch_size=8)
CLIP = {"num_frames": 6, "fps": 8.0, "size": 32}
FRAMES = np.random.default_rng(0).integers(0, 255, (6, 16, 32, 3), np.uint8)  # 3 x 2 x 4 tokens


def encoder_of(config: EncoderConfig = SIZES) -> VideoEncoder:
    """With weights large enough that attention is far from even."""
    encoder = VideoEncoder(config).eval().requires_grad_(False)
    for parameter in encoder.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.15)
    return encoder


def whole(given: BlockInput) -> torch.Tensor:
    """All weights of a block, [heads, N, N]."""
    return torch.cat([weights for _, weights in attention_rows(given)], dim=1)


@pytest.mark.parametrize(
    "rotary", [RotaryConfig(), RotaryConfig(frequencies="paired", span=16)], ids=["2.0", "2.1"]
)
def test_weighted_values_are_what_the_block_computes(rotary: RotaryConfig) -> None:
    encoder = encoder_of(SIZES.model_copy(update={"rotary": rotary}))
    for given in block_inputs(encoder, FRAMES, (0, 1, 2)).values():
        attention = given.block.attn
        seen: list[torch.Tensor] = []
        hook = attention.proj.register_forward_pre_hook(lambda _, x, seen=seen: seen.append(x[0]))
        given.block(given.x, *given.table)
        hook.remove()
        x = given.block.norm1(given.x)
        _, _, v = attention.queries_keys_values(x, given.table)
        mixed = (whole(given) @ v[0]).transpose(0, 1).flatten(1)
        assert (mixed - seen[0][0]).abs().max() < 1e-5
        assert whole(given).max() > 5 / given.grid.num_tokens


def test_weights_are_those_of_an_independent_implementation(tmp_path: Path) -> None:
    encoder = encoder_of()
    small = PredictorConfig(width=24, depth=1, num_heads=2)
    companions = Companions(small, Predictor(small, SIZES).state_dict())
    save_encoder(tmp_path / "ours", SIZES, encoder.state_dict(), CLIP, "# Card", companions)
    folder = export_huggingface(tmp_path / "ours", tmp_path / "theirs")
    theirs = VJEPA2Model.from_pretrained(folder, attn_implementation="eager").eval()
    clip = np.random.default_rng(1).integers(0, 255, (6, 32, 32, 3), np.uint8)
    pixels = normalise(torch.from_numpy(clip[None]), torch.float32).transpose(1, 2)
    with torch.no_grad():
        said = theirs(pixels, skip_predictor=True, output_attentions=True).attentions
    assert len(said) == SIZES.depth
    for layer, given in block_inputs(encoder, clip, range(SIZES.depth)).items():
        assert (whole(given) - said[layer][0]).abs().max() < 1e-5
        received = said[layer][0].sum(dim=1).reshape(4, 3, 4, 4)
        assert np.abs(attention_maps(given).received - received.numpy()).max() < 1e-4


def test_few_weights_exist_at_once_and_the_maps_are_the_same() -> None:
    given = block_inputs(encoder_of(), FRAMES, (1,))[1]
    once = attention_maps(given)
    for limit in (1, 4 * 24, 4 * 24 * 7):
        parts = list(attention_rows(given, limit))
        assert max(weights.numel() for _, weights in parts) <= max(limit, 4 * 24)
        assert [q for queries, _ in parts for q in range(24)[queries]] == list(range(24))
        for found, wanted in zip(attention_maps(given, limit), once, strict=True):
            assert np.abs(found - wanted).max() < 1e-5


def test_what_is_received_and_given_is_counted_token_by_token() -> None:
    given = block_inputs(encoder_of(), FRAMES, (2,))[2]
    maps, weights = attention_maps(given), whole(given).numpy()
    assert maps.received.shape == maps.given.shape == (4, 3, 2, 4)
    for head in range(4):
        for token in range(24):
            time, row, column = token // 8, token % 8 // 4, token % 4
            received = weights[head, :, token].sum()
            given_here = weights[head, token, time * 8 : time * 8 + 8].sum()
            assert maps.received[head, time, row, column] == pytest.approx(received, abs=1e-5)
            assert maps.given[head, time, row, column] == pytest.approx(given_here, abs=1e-5)
    assert maps.received.mean(axis=(1, 2, 3)) == pytest.approx(np.ones(4), abs=1e-5)
    assert maps.received.std() > 0.2 and maps.given.std() > 0.05


def test_even_attention_receives_one_and_gives_each_moment_the_same() -> None:
    encoder = encoder_of()
    block = encoder.blocks[1]
    block.attn.qkv.weight.zero_()
    block.attn.qkv.bias.zero_()
    maps = attention_maps(block_inputs(encoder, FRAMES, (1,))[1])
    assert np.allclose(maps.received, 1) and np.allclose(maps.given, 1 / 3)


def test_half_precision_weights_are_read_in_float32() -> None:
    encoder = encoder_of().bfloat16()
    for _, weights in attention_rows(block_inputs(encoder, FRAMES, (0,))[0]):
        assert weights.dtype == torch.float32
        assert torch.allclose(weights.sum(dim=-1), torch.ones(4, 24), atol=1e-5)


@pytest.mark.parametrize("layers", [(0, 3), (-1,)])
def test_a_layer_that_is_not_there_is_named(layers: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"no such layer.*from 0 to 2"):
        block_inputs(encoder_of(), FRAMES, layers)


def test_the_encoder_stays_as_it_was() -> None:
    encoder = encoder_of()
    block_inputs(encoder, FRAMES, (0, 2))
    assert not any(block._forward_pre_hooks for block in encoder.blocks)
    with pytest.raises(ValueError, match="whole number of tubelets"):
        block_inputs(encoder, FRAMES[:5], (0,))
    assert not any(block._forward_pre_hooks for block in encoder.blocks)
