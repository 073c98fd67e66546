"""The EMA target moves by tiny steps for a long time without losing them."""

from __future__ import annotations

import pytest
import torch

from echojepa.objectives.target import ema_update

MOMENTUM = 0.99925


def test_a_thousand_updates_follow_a_float64_replay() -> None:
    torch.manual_seed(0)
    online, target = torch.randn(64), torch.randn(64)
    replayed = target.double()
    start, address = target.clone(), target.data_ptr()
    for _ in range(1000):
        online += 0.02 * torch.randn(64)
        ema_update([(target, online)], MOMENTUM)
        replayed = MOMENTUM * replayed + (1 - MOMENTUM) * online.double()
    assert target.data_ptr() == address
    assert (target.double() - replayed).abs().max() < 1e-5
    assert (target - start).abs().mean() > 0.1


def test_every_pair_moves_and_the_online_side_stays() -> None:
    pairs = [(torch.zeros(3), torch.ones(3)), (torch.ones(2, 2), torch.zeros(2, 2))]
    ema_update(iter(pairs), 0.75)
    assert pairs[0][0].tolist() == [0.25] * 3
    assert pairs[1][0].tolist() == [[0.75] * 2] * 2
    assert pairs[0][1].tolist() == [1.0] * 3


@pytest.mark.parametrize(("momentum", "expected"), [(1.0, 0.0), (0.0, 1.0)])
def test_the_ends_of_the_range(momentum: float, expected: float) -> None:
    target = torch.zeros(4)
    ema_update([(target, torch.ones(4))], momentum)
    assert target.tolist() == [expected] * 4


def test_parameters_move_without_gradient_history() -> None:
    target = torch.nn.Parameter(torch.zeros(2))
    ema_update([(target, torch.nn.Parameter(torch.ones(2)))], 0.5)
    assert target.tolist() == [0.5, 0.5]
    assert target.is_leaf and target.grad_fn is None


@pytest.mark.parametrize(
    "dtypes",
    [
        (torch.bfloat16, torch.bfloat16),
        (torch.float32, torch.bfloat16),
        (torch.bfloat16, torch.float32),
    ],
)
def test_anything_but_float32_is_a_broken_promise(
    dtypes: tuple[torch.dtype, torch.dtype],
) -> None:
    target, online = (torch.zeros(2, dtype=dtype) for dtype in dtypes)
    with pytest.raises(AssertionError, match="float32"):
        ema_update([(target, online)], MOMENTUM)
