"""The predictor: hidden tokens are told apart by their positions alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from echojepa.models.attention import Grid
from echojepa.models.encoder import EncoderConfig, gather_tokens
from echojepa.models.predictor import Predictor, PredictorConfig

GRID = Grid(2, 3, 4)
TINY = PredictorConfig(width=24, depth=2, num_heads=2, num_mask_tokens=3)
ENCODER = EncoderConfig(width=16, depth=1, num_heads=2)
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def filled(*, activation_checkpointing: bool = False) -> Predictor:
    """A predictor whose mask tokens are not zero, and whose attention is far from uniform."""
    predictor = Predictor(TINY, ENCODER, activation_checkpointing=activation_checkpointing)
    with torch.no_grad():
        for token in predictor.mask_tokens:
            token.normal_()
        for linear in predictor.modules():
            if isinstance(linear, nn.Linear):
                linear.weight.mul_(15.0)
    return predictor


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Context features, their tokens and hidden tokens of two clips."""
    order = torch.stack([torch.randperm(24) for _ in range(2)])
    return torch.randn(2, 9, ENCODER.width), order[:, :9], order[:, 9:]


def test_only_the_token_in_use_is_trained() -> None:
    predictor = filled()
    context, keep, hidden = inputs()
    predictor(context, keep, hidden, GRID).square().mean().backward()
    assert [token.requires_grad for token in predictor.mask_tokens] == [True, False, False]
    untouched = {n for n, p in predictor.named_parameters() if p.grad is None}
    assert untouched == {"mask_tokens.1", "mask_tokens.2"}
    used = predictor.mask_tokens[0].grad
    assert used is not None and used.abs().sum() > 0


@torch.no_grad()
def test_spare_tokens_are_carried_and_play_no_part() -> None:
    predictor = filled()
    assert {f"mask_tokens.{i}" for i in range(3)} <= predictor.state_dict().keys()
    context, keep, hidden = inputs()
    before = predictor(context, keep, hidden, GRID)
    predictor.mask_tokens[1].mul_(2.0)
    assert torch.equal(predictor(context, keep, hidden, GRID), before)
    predictor.mask_tokens[0].mul_(-1.0)
    assert not torch.allclose(predictor(context, keep, hidden, GRID), before)


@torch.no_grad()
def test_output_follows_the_order_of_the_hidden_tokens() -> None:
    predictor = filled()
    context, keep, hidden = inputs()
    order = torch.stack([torch.randperm(hidden.shape[1]) for _ in range(2)])
    found = predictor(context, keep, hidden.gather(1, order), GRID)
    expected = predictor(context, keep, hidden, GRID)
    assert expected.shape == (2, 15, ENCODER.width)
    torch.testing.assert_close(found, gather_tokens(expected, order), **CLOSE)
    assert not torch.allclose(found, expected, atol=0.1)


@torch.no_grad()
def test_the_order_of_the_context_is_irrelevant() -> None:
    predictor = filled()
    context, keep, hidden = inputs()
    order = torch.stack([torch.randperm(9) for _ in range(2)])
    permuted = predictor(gather_tokens(context, order), keep.gather(1, order), hidden, GRID)
    torch.testing.assert_close(permuted, predictor(context, keep, hidden, GRID), **CLOSE)


@torch.no_grad()
def test_positions_decide_what_is_predicted() -> None:
    predictor = filled()
    context, keep, hidden = inputs()
    found = predictor(context, keep, hidden, GRID)
    assert not torch.allclose(found[:, 0], found[:, 1], atol=0.1)
    moved = predictor(context, keep.roll(1, 1), hidden, GRID)
    assert not torch.allclose(found, moved, atol=0.1)


def test_activation_checkpointing_changes_no_number() -> None:
    plain, thrifty = filled(), filled(activation_checkpointing=True)
    thrifty.load_state_dict(plain.state_dict())
    given = inputs()
    outputs = [predictor(*given, GRID) for predictor in (plain, thrifty)]
    assert torch.equal(*outputs)
    for output in outputs:
        output.square().mean().backward()
    for one, other in zip(plain.parameters(), thrifty.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None) == (not one.requires_grad)
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 5}, "width 24 over 5 heads is not whole and even"),
        ({"num_heads": 8}, "width 24 over 8 heads is not whole and even"),
        ({"num_mask_tokens": 0}, "greater than 0"),
        ({"depth": 0}, "greater than 0"),
        ({"mlp_ratio": -1.0}, "greater than 0"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PredictorConfig(**{**TINY.model_dump(), **changes})


def test_the_default_is_the_published_predictor() -> None:
    published = PredictorConfig()
    assert (published.width, published.depth, published.num_heads) == (384, 12, 12)
