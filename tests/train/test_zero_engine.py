"""ZeRO-3 and what it is known to get wrong if nobody looks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from support.ranks import run_ranks

from echojepa.data.stream import StreamShape
from echojepa.models.encoder import EncoderConfig
from echojepa.models.predictor import PredictorConfig
from echojepa.objectives.jepa import Jepa, JepaConfig
from echojepa.objectives.objective import ModelConfig, twins
from echojepa.runs.shards import ShardReader, reshard, write_shards
from echojepa.train.engine import OptimizerConfig, Schedule
from echojepa.train.zero_engine import ZeroEngine

pytestmark = pytest.mark.integration

MODEL = ModelConfig(
    encoder=EncoderConfig(width=24, depth=1, num_heads=2, patch_size=8),
    predictor=PredictorConfig(width=16, depth=1, num_heads=2, num_mask_tokens=3),
    activation_checkpointing=True,
)
AVERAGES = {"target.": "encoder."}
OPTIMIZER: dict[str, Any] = {"lr": Schedule(peak=1e-3), "max_micro_batch": 4}


def build(precision: str) -> Jepa:
    torch.manual_seed(0)
    return Jepa(MODEL, JepaConfig(), getattr(torch, precision))


def make(precision: str = "float32", **settings: Any) -> ZeroEngine:
    config = OptimizerConfig(**OPTIMIZER, precision=precision, **settings)
    world_size = dist.get_world_size()
    shape = StreamShape(2 * world_size, world_size, 2, 1, 2)
    return ZeroEngine(build(precision), AVERAGES, config, shape)


def batch(step: int) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
    """Another random clip and split of its 18 tokens for every rank and step."""
    generator = torch.Generator().manual_seed(100 * step + dist.get_rank())
    pixels = torch.randint(0, 255, (2, 4, 24, 24, 3), generator=generator, dtype=torch.uint8)
    order = torch.stack([torch.randperm(18, generator=generator) for _ in range(2)])
    return pixels, [order[:, :7], order[:, 11:]], [order[:, 7:], order[:, :11]]


def train(
    engine: ZeroEngine, step: int, factor: float = 1.0, wd: float = 0.0
) -> tuple[bool, float]:
    losses = engine.forward(*batch(step)).losses
    engine.backward(losses.mean() * factor / dist.get_world_size(), last=True)
    result = engine.step(1e-3, wd)
    return result.applied, result.gradient_norm


def snapshot(engine: ZeroEngine) -> dict[str, torch.Tensor]:
    return {key: shard.data.clone() for key, shard in engine.shards().items()}


def fresh_parameters(precision: str) -> bool:
    plain = build("float32").state_dict()
    shards = make(precision).shards()
    return all(
        torch.equal(
            shard.data,
            plain[key.removeprefix("weight/")].flatten()[
                shard.start : shard.start + len(shard.data)
            ],
        )
        for key, shard in shards.items()
        if key.startswith("weight/")
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_fresh_parameters_are_the_plain_models_to_the_bit(precision: str) -> None:
    assert all(run_ranks(fresh_parameters, 2, precision))


def model_state_bytes() -> int:
    return make().model_state_bytes()


def test_model_states_shrink_with_the_number_of_ranks() -> None:
    sizes = {n: run_ranks(model_state_bytes, n) for n in (1, 2, 4)}
    for n, per_rank in sizes.items():
        for size in per_rank:
            assert size == pytest.approx(sizes[1][0] / n, rel=0.05)


def poison(engine: ZeroEngine, where: str, value: float) -> Any:
    """Plant a value in what the patch embedding receives, or in the gradient that it passes on."""
    embed = engine._engine.module.encoder.patch_embed
    if where == "input":
        return embed.register_forward_pre_hook(lambda _, given: torch.full_like(given[0], value))

    def plant(_module: object, _given: object, out: torch.Tensor) -> None:
        if out.requires_grad:
            out.register_hook(lambda gradient: gradient * value)

    return embed.register_forward_hook(plant)


def adam_steps(engine: ZeroEngine) -> set[float]:
    return {float(state["step"]) for state in engine._zero.optimizer.state.values()}


POISONS = [(w, v) for w in ("loss", "gradient", "input") for v in (float("nan"), float("inf"))]


def planted() -> list[dict[str, Any]]:
    """What becomes of each poison on rank 1, and of a clean step after it."""
    engine = make()
    train(engine, 0)
    found = []
    for number, (where, value) in enumerate(POISONS, start=1):
        engine.update_averages(0.9)
        before, steps = snapshot(engine), adam_steps(engine)
        struck = dist.get_rank() == 1
        hook = poison(engine, where, value) if struck and where != "loss" else None
        applied, _ = train(engine, number, factor=value if struck and where == "loss" else 1.0)
        if hook is not None:
            hook.remove()
        after = snapshot(engine)
        case = {
            "what": (where, value),
            "applied": applied,
            "equal": all(torch.equal(before[k], after[k]) for k in before),
            "steps": (steps, adam_steps(engine)),
            "next": train(engine, 10 + number),
        }
        case["moved"] = any(not torch.equal(before[k], v) for k, v in snapshot(engine).items())
        found.append(case)
    return found


def test_what_is_not_finite_on_one_rank_changes_nothing_anywhere() -> None:
    """In its loss, in a gradient on the way back, in what its encoder is given."""
    for rank in run_ranks(planted, 2):
        for number, case in enumerate(rank, start=1):
            assert not case["applied"], case
            assert case["equal"], case
            assert case["steps"] == ({float(number)}, {float(number)})
            assert case["next"][0], "the poison must not linger"
            assert 0 < case["next"][1] < 1e3
            assert case["moved"]


def clipping(limit: float | None) -> tuple[float, float]:
    """Gradient norm, and Adam's first moment's norm after one step (a tenth of the gradient)."""
    engine = make(max_gradient_norm=limit)
    _, norm = train(engine, 0, factor=50.0)
    squares = sum(
        shard.data.double().square().sum()
        for key, shard in engine.shards().items()
        if key.startswith("exp_avg/")
    )
    total = torch.as_tensor(squares)
    dist.all_reduce(total)
    return norm, float(total.sqrt()) * 10


def test_gradients_are_clipped_only_when_asked() -> None:
    norm, kept = run_ranks(clipping, 2, None)[0]
    assert norm > 2.0
    assert kept == pytest.approx(norm, rel=1e-4)
    norm, kept = run_ranks(clipping, 2, 0.5)[0]
    assert norm > 2.0, "the norm is reported before clipping"
    assert kept == pytest.approx(0.5, rel=1e-3)


def decayed() -> dict[str, float]:
    """How much every weight shrinks in a step of pure decay (the gradient is zero)."""
    engine = make()
    before = snapshot(engine)
    train(engine, 0, factor=0.0, wd=0.5)
    after = snapshot(engine)
    weights = [k for k in before if k.startswith("weight/") and len(before[k])]
    return {
        k: float((after[k] - before[k]).norm()) / max(float(before[k].norm()), 1e-9)
        for k in weights
    }


def test_weight_decay_spares_one_dimensional_parameters_and_frozen_ones() -> None:
    shrunk = run_ranks(decayed, 2)[0]
    matrices = [k for k in shrunk if k.endswith("qkv.weight") and "target" not in k]
    assert all(shrunk[k] == pytest.approx(1e-3 * 0.5, rel=1e-2) for k in matrices)
    spared = [k for k in shrunk if k.endswith("bias") or "norm" in k or "target" in k]
    assert spared
    assert all(shrunk[k] == 0 for k in spared)


def restored(folder: str, precision: str) -> tuple[list[float], list[float]]:
    """Gradient norms of steps 3 to 5 without and with a save, a new engine and a load before 3."""
    engine = make(precision)
    for step in range(3):
        train(engine, step)
        engine.update_averages(0.5)
    rank, world = dist.get_rank(), dist.get_world_size()
    from pathlib import Path

    write_shards(Path(folder), engine.shards(), rank, world)
    dist.barrier()
    undisturbed = [train(engine, step)[1] for step in range(3, 6)]
    other = make(precision)
    train(other, 77)  # a used engine: everything must be overwritten
    with ShardReader(Path(folder)) as reader:
        other.load_shards(reshard(reader, other.shards()), num_steps=3)
    return undisturbed, [train(other, step)[1] for step in range(3, 6)]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_first_step_after_loading_runs_on_the_loaded_weights(
    tmp_path: Any, precision: str
) -> None:
    for undisturbed, again in run_ranks(restored, 2, str(tmp_path), precision):
        assert again == undisturbed


def averaged(num_steps: int) -> dict[str, Any]:
    """EMA against a float64 replay of the masters, and the target's forward against its shards."""
    engine = make("bfloat16")
    replay = {n: t.double() for n, t in engine._averages.items()}
    twin = twins(replay, AVERAGES)
    for step in range(num_steps):
        pixels, context, hidden = batch(step)
        losses = engine.forward(pixels, context[:1], hidden[:1]).losses
        engine.backward(losses.mean() / dist.get_world_size(), last=True)
        assert engine.step(1e-3, 0.0).applied
        engine.update_averages(0.99925)
        masters = engine._masters()
        for name, average in replay.items():
            average += (1 - 0.99925) * (masters[twin[name]].double() - average)
    errors = [float((engine._averages[n].double() - replay[n]).norm()) for n in replay]
    moved = [float((replay[n] - engine._masters()[twin[n]]).norm()) for n in replay]
    published = all(
        torch.equal(engine._parameters[n].ds_tensor, t.to(torch.bfloat16))
        for n, t in engine._averages.items()
    )
    return {
        "error": max(errors),
        "moved": max(moved),
        "published": published,
        "forward": forward_difference(engine),
    }


def forward_difference(engine: ZeroEngine) -> float:
    """Target features through ZeRO against a plain target filled from all ranks' shards."""
    pieces: list[Any] = [None] * dist.get_world_size()
    mine = {k: s.data for k, s in engine.shards().items() if k.startswith("weight/target.")}
    dist.all_gather_object(pieces, mine)
    plain = build("bfloat16").bfloat16()
    state = plain.state_dict()
    for key in mine:
        name = key.removeprefix("weight/")
        whole = torch.cat([piece[key] for piece in pieces]).reshape(state[name].shape)
        state[name].copy_(whole)
    pixels, _, _ = batch(999)
    with torch.no_grad():
        ours = engine.forward(pixels).features["target"].float()
        theirs = plain(pixels).features["target"].float()
    return float((ours - theirs).abs().max())


def test_the_average_after_a_thousand_steps_in_bfloat16() -> None:
    for rank in run_ranks(averaged, 2, 1000):
        assert rank["error"] < 1e-5
        assert rank["moved"] > 1e-3, "an average that equals the weights proves nothing"
        assert rank["published"]
        assert rank["forward"] == 0


def test_spare_mask_tokens_are_carried_not_trained() -> None:
    for names in run_ranks(trained_names, 2):
        assert "exp_avg/predictor.mask_tokens.0" in names
        assert "weight/predictor.mask_tokens.2" in names
        assert "exp_avg/predictor.mask_tokens.2" not in names


def trained_names() -> set[str]:
    return set(make().shards())
