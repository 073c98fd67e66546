"""The encoder: tokens carry their positions, sizes are free, and it starts as published."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from echojepa.config import validate
from echojepa.errors import ConfigError
from echojepa.models.attention import Block, Grid, Rotary, RotaryConfig, rotary_table, rotate
from echojepa.models.encoder import EncoderConfig, VideoEncoder, gather_tokens

TINY = EncoderConfig(width=24, depth=2, num_heads=2, patch_size=4)
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def lively() -> VideoEncoder:
    """A tiny encoder whose attention is far from uniform, so that positions matter."""
    encoder = VideoEncoder(TINY)
    with torch.no_grad():
        for linear in encoder.blocks.modules():
            if isinstance(linear, nn.Linear):
                linear.weight.mul_(15.0)
    return encoder


def shuffled_tokens(batch: int, number: int, num_tokens: int) -> torch.Tensor:
    """Different random tokens for every clip, [B, K]."""
    return torch.stack([torch.randperm(num_tokens)[:number] for _ in range(batch)])


@torch.no_grad()
def test_the_order_of_kept_tokens_permutes_the_features_and_nothing_else() -> None:
    encoder = lively()
    clip = torch.randn(2, 3, 4, 12, 16)
    keep = shuffled_tokens(2, 11, 24)
    order = shuffled_tokens(2, 11, 11)
    permuted = encoder(clip, keep.gather(1, order))
    expected = encoder(clip, keep)
    torch.testing.assert_close(permuted, gather_tokens(expected, order), **CLOSE)
    assert not torch.allclose(permuted, expected, atol=0.1)
    swapped = encoder(clip.flip(-1), keep)  # other pixels at the same positions
    assert not torch.allclose(swapped, expected, atol=0.1)


@torch.no_grad()
def test_keeping_every_token_is_encoding_the_clip() -> None:
    encoder = lively()
    clip = torch.randn(2, 3, 4, 12, 16)
    keep = torch.arange(24).expand(2, -1)
    torch.testing.assert_close(encoder(clip, keep), encoder(clip), **CLOSE)


@torch.no_grad()
def test_hidden_pixels_do_not_reach_the_kept_tokens() -> None:
    encoder = lively()
    clip = torch.randn(1, 3, 4, 8, 8)
    other = clip.clone()
    other[:, :, :2, :4, :4] += 1.0  # token 0
    keep = torch.arange(1, 8)[None]
    assert torch.equal(encoder(clip, keep), encoder(other, keep))
    assert not torch.allclose(encoder(clip), encoder(other))


@torch.no_grad()
@pytest.mark.parametrize(
    ("frames", "height", "width", "tokens"), [(2, 4, 4, 1), (4, 8, 16, 16), (10, 12, 4, 15)]
)
def test_one_set_of_weights_takes_any_clip(
    frames: int, height: int, width: int, tokens: int
) -> None:
    encoder = lively()
    features = encoder(torch.randn(2, 3, frames, height, width))
    assert features.shape == (2, tokens, TINY.width)
    assert features.isfinite().all()


@torch.no_grad()
def test_token_order_is_time_row_column() -> None:
    encoder = lively()
    clip = torch.randn(1, 3, 4, 8, 12)
    for token in (0, 1, 3, 6, 11):
        time, row, column = token // 6, token // 3 % 2, token % 3
        alone = encoder(clip, torch.tensor([[token]]))
        tubelet = clip[:, :, 2 * time : 2 * time + 2, 4 * row : 4 * row + 4]
        # A single token attends to itself alone, so its position plays no part.
        pixels = tubelet[..., 4 * column : 4 * column + 4]
        torch.testing.assert_close(alone, encoder(pixels), **CLOSE)


@torch.no_grad()
def test_the_same_pixels_elsewhere_give_other_features() -> None:
    encoder = lively()
    clip = torch.randn(1, 3, 2, 4, 4).repeat(1, 1, 2, 2, 2)
    clip[..., 4:] *= -1.0
    features = encoder(clip)[0]
    for one, other in ((0, 2), (0, 4), (1, 3)):
        assert not torch.allclose(features[one], features[other], atol=1e-2), (one, other)


@torch.no_grad()
def test_the_patch_projection_is_the_convolution_it_is_stored_as() -> None:
    embed = VideoEncoder(TINY).patch_embed
    clip = torch.randn(2, 3, 2, 4, 4)
    convolved = torch.nn.functional.conv3d(
        clip, embed.proj.weight, embed.proj.bias, stride=(2, 4, 4)
    )
    torch.testing.assert_close(embed(clip.flatten(1)), convolved.flatten(1))


@pytest.mark.parametrize("clip", [(3, 8, 8), (4, 9, 8), (4, 8, 10), (0, 8, 8), (4, 0, 8)])
def test_a_clip_that_is_not_whole_tubelets_is_refused(clip: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"not a whole number of tubelets of 2 x 4 x 4"):
        TINY.grid(*clip)
    if all(clip):
        with pytest.raises(ValueError, match="not a whole number of tubelets"):
            VideoEncoder(TINY)(torch.zeros(1, 3, *clip))


def test_the_grid_of_a_clip() -> None:
    grid = TINY.grid(6, 8, 20)
    assert grid == Grid(3, 2, 5)
    assert (grid.num_cells, grid.num_tokens) == (10, 30)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 5}, "width 24 is not a multiple of 5 heads"),
        ({"num_heads": 8}, "width per head 3 is odd"),
        ({"width": 0}, "greater than 0"),
        ({"depth": -1}, "greater than 0"),
        ({"mlp_ratio": 0.0}, "greater than 0"),
        ({"patch_size": 0}, "greater than 0"),
        ({"tubelet_size": 0}, "greater than 0"),
        ({"colour": 3}, "colour"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, Any], message: str) -> None:
    tree = {**TINY.model_dump(), **changes}
    with pytest.raises(ValidationError, match=message):
        EncoderConfig(**tree)
    with pytest.raises(ConfigError, match=f"{message}|unknown key"):
        validate(tree, EncoderConfig, "here")


@pytest.mark.parametrize("kept", [None, 5])
def test_activation_checkpointing_changes_no_number(kept: int | None) -> None:
    plain = VideoEncoder(TINY)
    thrifty = VideoEncoder(TINY, activation_checkpointing=True)
    thrifty.load_state_dict(plain.state_dict())
    clip = torch.randn(2, 3, 4, 8, 8)
    keep = None if kept is None else shuffled_tokens(2, kept, 8)
    outputs = [encoder(clip, keep) for encoder in (plain, thrifty)]
    assert torch.equal(*outputs)
    for output in outputs:
        output.square().mean().backward()
    pairs = zip(plain.named_parameters(), thrifty.named_parameters(), strict=True)
    for (name, one), (_, other) in pairs:
        assert one.grad is not None and other.grad is not None, name
        assert one.grad.abs().sum() > 0, name
        torch.testing.assert_close(one.grad, other.grad, msg=name)


def test_activation_checkpointing_keeps_fewer_tensors() -> None:
    clip = torch.randn(1, 3, 4, 8, 8)

    def saved_bytes(*, thrifty: bool) -> int:
        encoder = VideoEncoder(TINY, activation_checkpointing=thrifty)
        sizes: list[int] = []

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            encoder(clip)
        return sum(sizes)

    assert saved_bytes(thrifty=True) < 0.5 * saved_bytes(thrifty=False)


def test_weights_start_as_published() -> None:
    encoder = VideoEncoder(EncoderConfig(width=192, depth=4, num_heads=6))
    assert encoder.patch_embed.proj.weight.std().item() == pytest.approx(0.02, rel=0.03)
    for index, block in enumerate(encoder.blocks, start=1):
        assert isinstance(block, Block)
        for linear in (block.attn.qkv, block.mlp.fc1):
            assert linear.weight.std().item() == pytest.approx(0.02, rel=0.03)
        for linear in (block.attn.proj, block.mlp.fc2):
            shrunk = 0.02 / math.sqrt(2 * index)
            assert linear.weight.std().item() == pytest.approx(shrunk, rel=0.03)
            assert linear.weight.mean().item() == pytest.approx(0.0, abs=1e-3)
    for name, parameter in encoder.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name:
            assert torch.equal(parameter, torch.ones_like(parameter)), name


@pytest.mark.parametrize(
    ("config", "millions"),
    [
        (EncoderConfig(width=1024, depth=24, num_heads=16), (303.0, 305.0)),
        (EncoderConfig(width=1408, depth=40, num_heads=22, mlp_ratio=48 / 11), (1011.0, 1013.0)),
    ],
    ids=["ViT-L", "ViT-g"],
)
def test_published_sizes(config: EncoderConfig, millions: tuple[float, float]) -> None:
    with torch.device("meta"):
        encoder = VideoEncoder(config)
    found = sum(p.numel() for p in encoder.parameters()) / 1e6
    assert millions[0] <= found <= millions[1]


@pytest.mark.parametrize("width", [12, 16, 22, 64])
def test_rotary_tables_turn_by_plain_positions(width: int) -> None:
    """Attention depends on differences of positions alone, along every axis."""
    grid = Grid(4, 5, 6)
    table = rotary_table(
        torch.arange(grid.num_tokens)[None], grid, width, torch.float32, RotaryConfig()
    )
    assert table.cos.shape == (1, 1, grid.num_tokens, width)
    turned = 3 * 2 * (width // 3 // 2)
    assert torch.all(table.cos[..., turned:] == 1) and torch.all(table.sin[..., turned:] == 0)
    assert torch.all(table.cos[0, 0, 0] == 1)

    def at(time: int, row: int, column: int) -> int:
        return (time * grid.rows + row) * grid.columns + column

    def angles(token: int) -> torch.Tensor:
        cos, sin = Rotary(*table)
        return torch.atan2(sin[0, 0, token], cos[0, 0, token])

    step = angles(at(1, 0, 0)) + angles(at(0, 1, 0)) + angles(at(0, 0, 1))
    torch.testing.assert_close(angles(at(1, 1, 1)), step)
    torch.testing.assert_close(
        angles(at(0, 1, 2)) - angles(at(0, 1, 1)), angles(at(0, 0, 1)), atol=1e-5, rtol=0
    )


def test_rotation_leaves_the_origin_alone() -> None:
    grid = Grid(2, 2, 2)
    table = rotary_table(torch.tensor([[0, 7]]), grid, 12, torch.float32, RotaryConfig())
    x = torch.randn(1, 1, 2, 12)
    turned = rotate(x, table)
    assert torch.equal(turned[:, :, 0], x[:, :, 0])
    assert not torch.allclose(turned[:, :, 1], x[:, :, 1])
