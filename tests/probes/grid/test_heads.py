"""Heads of a grid are the published ones, whatever is folded; absent slots are not looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.paths import DATA
from support.plain_heads import Plain, PlainAttentive, PlainMean
from torch.utils.flop_counter import FlopCounterMode

from echojepa.models.formats.files import read_tensors
from echojepa.models.weights import fill
from echojepa.probes.grid.config import GridConfig
from echojepa.probes.grid.heads import Design, Heads, build_heads
from echojepa.probes.grid.samples import Batch, SampleShape
from echojepa.probes.grid.target import Target

WIDTH, TOKENS, GRID, OUTPUTS = 24, 5, 3, 4
NUMBER = Target(kind="regression")
CLASSES = Target(kind="classification", classes=tuple("abcd"))
Tensors = dict[str, torch.Tensor]


def heads(
    slots: tuple[int, int] = (2, 2),
    target: Target = CLASSES,
    grid: int = GRID,
    width: int = WIDTH,
    **settings: Any,
) -> Heads:
    """Heads with random parameters everywhere, different in every head of the grid."""
    config = GridConfig(**{"num_heads": 4, "precision": "float64", **settings})
    shape = SampleShape(views=tuple("ABC"[: slots[0]]), clips=slots[1], tokens=TOKENS, width=width)
    made = build_heads(config, Design(grid, shape, target)).eval()
    for parameter in made.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return made


def one(state: Tensors, head: int) -> Tensors:
    return {name: tensor[head] for name, tensor in state.items()}


def plain(of: Heads, head: int, slots: tuple[int, int] = (2, 2), depth: int = 1) -> Plain:
    """The published head with the parameters of one of the grid, every name taken."""
    state = one(of.state_dict(), head)
    outputs = len(state["linear.bias" if "linear.bias" in state else "fc2.bias"])
    if "pooler.query_tokens" in state:
        made: Plain = PlainAttentive(WIDTH, outputs, 4, depth, slots)
    else:
        made = PlainMean(WIDTH, outputs, slots, hidden="fc2.bias" in state)
    made.double().load_state_dict(state, strict=True)
    return made


def shown(slots: int = 4, *, all_present: bool = False) -> Batch:
    """Tokens that are neither centred nor of unit size; one slot at least is present."""
    tokens = 3 * torch.randn(6, slots, TOKENS, WIDTH, dtype=torch.float64) + 1
    present = torch.rand(6, slots) < 0.6
    present[:, 0] |= ~present.any(dim=1)
    present[0] = True
    return Batch(tokens, torch.ones_like(present) if all_present else present)


def test_the_published_probe_gives_the_published_outputs() -> None:
    made = build_heads(
        GridConfig(num_heads=4),
        Design(
            1,
            SampleShape(views=("A4C", "PSAX-AV"), clips=2, tokens=10, width=64),
            Target(kind="classification", classes=tuple("abcde")),
        ),
    )
    state = read_tensors(DATA / "probe_d1.pt")
    fill(made, {name: tensor[None] for name, tensor in state.items()}, Path("probe_d1.pt"))
    golden = np.load(DATA / "probe_d1.npz")
    ignored = torch.from_numpy(golden["mask"]).unflatten(1, (4, 10))
    assert ignored.any() and (ignored.all(dim=2) == ignored.any(dim=2)).all()
    tokens = torch.from_numpy(golden["x"]).unflatten(1, (4, 10))
    with torch.no_grad():
        said = made(Batch(tokens, ~ignored.any(dim=2)))
    np.testing.assert_allclose(said[0].numpy(), golden["y"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("slots", [(2, 2), (1, 2), (3, 1), (1, 1)])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("all_present", [True, False])
def test_every_attentive_head_is_the_plain_formula_and_so_are_its_gradients(
    slots: tuple[int, int], depth: int, all_present: bool
) -> None:
    made, batch = heads(slots, depth=depth), shown(slots[0] * slots[1], all_present=all_present)
    said = made(batch)
    said.square().sum().backward()
    for head in range(GRID):
        alone = plain(made, head, slots, depth)
        expected = alone(*batch)
        torch.testing.assert_close(said[head], expected, rtol=0, atol=1e-10)
        expected.square().sum().backward()
        for name, parameter in made.named_parameters():
            gradient = alone.get_parameter(name).grad
            torch.testing.assert_close(parameter.grad[head], gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
@pytest.mark.parametrize("slots", [(2, 2), (1, 1)])
def test_heads_on_the_mean_are_the_plain_formula(kind: str, slots: tuple[int, int]) -> None:
    made, batch = heads(slots, head=kind), shown(slots[0] * slots[1])
    for head, said in enumerate(made(batch)):
        torch.testing.assert_close(said, plain(made, head, slots)(*batch), rtol=0, atol=1e-10)


KINDS = [
    {"head": "linear"},
    {"head": "mlp"},
    {"depth": 1},
    {"depth": 1, "embeddings": False},
    {"depth": 2},
]


@pytest.mark.parametrize("fusion", ["early", "late"])
@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_what_is_absent_changes_nothing(settings: dict[str, Any], fusion: str) -> None:
    made, batch = heads(fusion=fusion, **settings), shown()
    before = made(batch)
    for garbage in (0.0, 1e6, torch.nan, torch.inf):
        tokens = batch.tokens.masked_fill(~batch.present[..., None, None], garbage)
        assert torch.equal(made(Batch(tokens, batch.present)), before)
    before.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in made.parameters())


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_a_sample_with_absent_clips_is_one_that_never_had_them(settings: dict[str, Any]) -> None:
    """Two views, the second absent, against the same head that knows the first alone."""
    made, alone = heads((2, 1), **settings), heads((1, 1), **settings)
    alone.load_state_dict(made.state_dict(), strict=False)
    batch = shown(2, all_present=True)
    batch.present[:, 1] = False
    tokens = batch.tokens[:, :1].clone()
    said = made(batch)
    if made.view_embed is not None:
        each = [
            alone(Batch(tokens + vector, batch.present[:, :1]))[head]
            for head, vector in enumerate(made.view_embed.weight[:, 0])
        ]
    else:
        each = list(alone(Batch(tokens, batch.present[:, :1])))
    torch.testing.assert_close(said, torch.stack(each), rtol=0, atol=1e-10)


def test_without_embeddings_no_parameter_tells_slots_apart() -> None:
    made, batch = heads(embeddings=False), shown(all_present=True)
    assert not [name for name in made.state_dict() if "embed" in name]
    swapped = Batch(batch.tokens.flip(1), batch.present)
    torch.testing.assert_close(made(swapped), made(batch))
    telling = heads()
    assert (telling(swapped) - telling(batch)).abs().max() > 0.01


@pytest.mark.parametrize("settings", KINDS, ids=str)
@pytest.mark.parametrize("target", [NUMBER, CLASSES], ids=lambda target: target.kind)
def test_late_fusion_averages_what_is_said_of_every_clip(
    settings: dict[str, Any], target: Target
) -> None:
    """Numbers, and probabilities; clips alone are seen as the slot that they are in."""
    late, early = heads(target=target, fusion="late", **settings), heads(target=target, **settings)
    early.load_state_dict(late.state_dict())
    batch = shown()

    def read(outputs: torch.Tensor) -> torch.Tensor:
        return outputs if target is NUMBER else outputs.softmax(dim=-1)

    said = read(late(batch))
    for sample, there in enumerate(batch.present):
        each = []
        for slot in there.nonzero()[:, 0].tolist():
            only = torch.zeros(1, 4, dtype=torch.bool)
            only[0, slot] = True
            each.append(read(early(Batch(batch.tokens[sample : sample + 1], only)))[:, 0])
        expected = torch.stack(each).mean(dim=0)
        torch.testing.assert_close(said[:, sample], expected, rtol=0, atol=1e-10)


def test_heads_start_alike_small_and_shrunk_by_depth() -> None:
    shape = SampleShape(views=("A", "B"), clips=1, tokens=TOKENS, width=256)
    made = build_heads(GridConfig(depth=3, seed=5), Design(2, shape, CLASSES))
    state = made.state_dict()
    for name, tensor in state.items():
        assert torch.equal(tensor[0], tensor[1]), name
        if name.endswith("bias"):
            assert not tensor.any(), name
        elif "norm" in name:
            assert (tensor == 1).all(), name
        else:
            layer = int(name.split(".")[2]) + 1 if "blocks" in name else 3
            shrunk = "fc2" in name or "attn.proj" in name
            deviation = 0.02 / (2 * layer) ** 0.5 if shrunk else 0.02
            assert tensor.std().item() == pytest.approx(deviation, rel=0.2), name
    again = build_heads(GridConfig(depth=3, seed=5), Design(1, shape, CLASSES)).state_dict()
    assert torch.equal(again["linear.weight"][0], state["linear.weight"][1])
    other = build_heads(GridConfig(depth=3, seed=6), Design(1, shape, CLASSES)).state_dict()
    assert not torch.equal(other["linear.weight"], again["linear.weight"])


def test_a_token_costs_less_than_a_projection_of_it() -> None:
    """Products with tokens: heads x D each, for every head of the grid, not D x D."""
    number, width = 1000, 256
    shape = SampleShape(views=("",), clips=1, tokens=number, width=width)
    config = GridConfig(num_heads=4)
    made = build_heads(config, Design(GRID, shape, CLASSES)).requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        made(Batch(torch.randn(2, 1, number, width), torch.ones(2, 1, dtype=torch.bool)))
    folded = 2 * (2 * number * width) * 2 * GRID * config.num_heads
    of_the_rest = GRID * (2 * width * width * (1 + 2 * 9) + 2 * width * width)
    assert counter.get_total_flops() < folded + 2 * of_the_rest
    assert counter.get_total_flops() < 2 * number * 2 * GRID * 2 * width * width / 8
