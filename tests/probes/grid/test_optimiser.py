"""AdamW of every head of a grid is torch's own; the course of the learning rate is V-JEPA 2's."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from support.paths import DATA
from torch import nn

from echojepa.probes.grid.layers import BatchedLinear
from echojepa.probes.grid.optimiser import GridAdamW, lr_factor

GRID = 3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_head_is_stepped_as_by_an_optimiser_of_its_own(dtype: torch.dtype) -> None:
    heads = BatchedLinear(GRID, 5, 4).to(dtype)
    for parameter in heads.parameters():
        nn.init.normal_(parameter)
    decays, rates = (0.0, 0.1, 3.0), (1e-3, 1e-1, 1e-2)
    alone = [nn.Linear(5, 4).to(dtype) for _ in range(GRID)]
    optimisers = []
    for head, module in enumerate(alone):
        module.load_state_dict({name: t[head] for name, t in heads.state_dict().items()})
        optimisers.append(torch.optim.AdamW(module.parameters(), weight_decay=decays[head]))
    ours = GridAdamW(heads, decays)
    for step in range(20):
        x = torch.randn(GRID, 7, 5, dtype=dtype)
        heads(x).square().sum().backward()
        ours.step([rate * (20 - step) for rate in rates])
        assert all(parameter.grad is None for parameter in heads.parameters())
        for head, (module, optimiser) in enumerate(zip(alone, optimisers, strict=True)):
            optimiser.zero_grad()
            module(x[head]).square().sum().backward()
            optimiser.param_groups[0]["lr"] = rates[head] * (20 - step)
            optimiser.step()
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for head, module in enumerate(alone):
        for name, parameter in module.named_parameters():
            found = heads.get_parameter(name)[head]
            torch.testing.assert_close(found, parameter, rtol=tolerance, atol=tolerance)


def test_a_step_of_zero_changes_nothing() -> None:
    heads = BatchedLinear(GRID, 5, 4)
    nn.init.normal_(heads.weight)
    before = copy.deepcopy(heads.state_dict())
    heads(torch.randn(GRID, 2, 5)).sum().backward()
    GridAdamW(heads, [0.5] * GRID).step([0.0] * GRID)
    assert all(torch.equal(before[name], t) for name, t in heads.state_dict().items())


def test_the_course_of_the_learning_rate_is_the_published_one() -> None:
    """Theirs does not begin and end at zero; as shares of the way the two are the same."""
    golden = json.loads((DATA / "schedules.json").read_text())["warmup_cosine"]
    warmup, steps = golden["args"]["warmup_steps"], golden["args"]["T_max"]
    peak = golden["args"]["ref_lr"]
    for step, value in enumerate(golden["values"]):
        other = golden["args"]["start_lr" if step + 1 < warmup else "final_lr"]
        expected = (value - other) / (peak - other)
        assert lr_factor(step, warmup, steps) == pytest.approx(expected, abs=1e-12)


def test_without_a_warm_up_the_course_begins_at_the_peak() -> None:
    course = [lr_factor(step, 0, 4) for step in range(4)]
    assert course == pytest.approx([0.5 * (1 + 0.5**0.5), 0.5, 0.5 * (1 - 0.5**0.5), 0.0])
