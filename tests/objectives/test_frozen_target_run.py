"""A frozen target in engines and runs: it stays, is not saved, and no other takes its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from support.exported import card_of_encoder
from support.ranks import prepare, pretrain_on_ranks, pretrain_plain, run_ranks, variant
from support.teachers import module_of, objective_of, pixels_of, write_teacher

from echojepa.config import validate
from echojepa.data.stream import StreamShape
from echojepa.errors import CheckpointError, ConfigError
from echojepa.models.weights import encoder_digest, load_encoder, read_companions
from echojepa.objectives.objective import Objective
from echojepa.pretrain import PretrainConfig
from echojepa.replay import replay
from echojepa.runs.checkpoint import folder_of, read_state
from echojepa.runs.folder import RunFolder
from echojepa.train.engine import Engine, OptimizerConfig, PlainEngine, Schedule
from echojepa.train.zero_engine import ZeroEngine

Tree = dict[str, Any]


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return write_teacher(tmp_path / "teacher")


# ------------------------------------------------------------------------------------ in an engine


OPTIMIZER: dict[str, Any] = {"lr": Schedule(peak=1e-2), "max_micro_batch": 2}


def take_steps(engine: Engine, objective: Objective, ranks: int) -> None:
    for step in range(3):
        samples = np.arange(2) + 2 * step
        losses = engine.forward(pixels_of(2), *objective.draw(samples)).losses
        engine.backward(losses.mean() / ranks, last=True)
        assert engine.step(1e-2, 0.1).applied
        engine.update_averages(0.5)


def kept(engine: Engine, teacher: Path) -> bool:
    """Whether this rank's part of the target is that of the folder, and without any other state."""
    shards, dtype = engine.shards(), torch.float32
    if isinstance(engine, ZeroEngine):
        dtype = next(iter(engine._parameters.values())).ds_tensor.dtype
    assert {k.partition("/")[0] for k in shards if "/target." in k} == {"weight"}
    for name, tensor in load_encoder(teacher).state_dict().items():
        shard = shards[f"weight/target.{name}"]
        own = tensor.to(dtype).float().flatten()[shard.start : shard.start + len(shard.data)]
        if not torch.equal(shard.data, own):
            return False
    return True


def test_a_plain_engine_never_changes_it(teacher: Path) -> None:
    objective = objective_of(teacher)
    module = module_of(objective)
    engine = PlainEngine(module, objective.facts.averages, OptimizerConfig(**OPTIMIZER))
    before = module.encoder.norm.weight.detach().clone()
    take_steps(engine, objective, 1)
    assert not torch.equal(module.encoder.norm.weight, before)
    assert kept(engine, teacher)
    assert all(p.grad is None for p in module.target.parameters())


def on_rank(folder: Path, precision: str) -> tuple[bool, int, int]:
    """Whether the target stayed, and the bytes of trained and of all model states."""
    objective = objective_of(folder)
    world = dist.get_world_size()
    module = objective.module(getattr(torch, precision))
    objective.complete(module)
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    config = OptimizerConfig(**OPTIMIZER, precision=precision)
    shape = StreamShape(2 * world, world, 2, 1, 2)
    engine = ZeroEngine(module, objective.facts.averages, config, shape)
    assert not engine._averages
    take_steps(engine, objective, world)
    return kept(engine, folder), trained, engine.model_state_bytes()


@pytest.mark.integration
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_ranks_never_change_it_and_hold_its_weights_alone(teacher: Path, precision: str) -> None:
    number = 2 if precision == "bfloat16" else 4
    size = sum(p.numel() for p in load_encoder(teacher).parameters())
    for stayed, trained, held in run_ranks(on_rank, 2, teacher, precision):
        assert stayed
        master_and_moments = 4 + 8
        expected = trained * (number + master_and_moments) + size * number
        assert held == pytest.approx(expected / 2, rel=0.03)


# ------------------------------------------------------------------------------------- in a run


@pytest.fixture
def run(tree: Tree, teacher: Path) -> Tree:
    tree["objective"] |= {"kind": "frozen_target", "target": str(teacher)}
    return tree


def test_two_ranks_then_one_equal_an_undisturbed_run(run: Tree, teacher: Path) -> None:
    plain = variant(run, "plain")
    undisturbed = pretrain_plain(plain)
    assert undisturbed[-1] < undisturbed[0]
    resumed = variant(run, "resumed")
    resumed["loop"]["stop_after_step"] = 4
    pretrain_on_ranks(resumed, 2)
    moved = teacher.rename(teacher.with_name("elsewhere"))  # the same encoder, wherever it is
    resumed["objective"]["target"] = str(moved)
    resumed["loop"]["stop_after_step"] = None
    np.testing.assert_allclose(pretrain_on_ranks(resumed, 1), undisturbed, atol=1e-4)
    check_folder(resumed, moved)


def check_folder(run: Tree, teacher: Path) -> None:
    """What a finished run has left: no trace of the target but its digest."""
    folder = RunFolder(run["run_dir"])
    last = folder_of(folder.checkpoints, 8)
    card = card_of_encoder(folder, 8)
    digest = encoder_digest(teacher)
    assert read_state(last)["config"]["objective"]["target_sha256"] == digest
    assert digest in card and str(teacher) not in card and "momentum" not in card
    assert read_companions(folder.encoder) is None
    metrics = json.loads((folder.path / "metrics.jsonl").read_text().splitlines()[-1])
    assert "feature_std" in metrics and "momentum" not in metrics


def test_a_run_does_not_go_on_with_another_target(run: Tree, teacher: Path) -> None:
    run["loop"]["stop_after_step"] = 2
    pretrain_plain(run)
    write_teacher(teacher, seed=6)
    run["loop"]["stop_after_step"] = None
    with pytest.raises(ConfigError, match="other values of objective.target_sha256"):
        prepare(run)
    tree = RunFolder(run["run_dir"]).config_tree()  # a worker that reads the changed folder
    with pytest.raises(CheckpointError, match="the target is another encoder"):
        run_unprepared(tree)


def run_unprepared(tree: Tree) -> None:
    from echojepa.pretrain import pretrain
    from echojepa.train.worker import LocalWorker

    pretrain(validate(tree, PretrainConfig, "test"), LocalWorker())


def test_a_fork_learns_from_the_target_that_it_names(run: Tree, tmp_path: Path) -> None:
    """Not from that of its source: the loss jumps."""
    pretrain_plain(run)
    losses = {}
    for name, seed in (("same", 5), ("other", 6)):
        fork = variant(run, name) | {"fork_from": run["run_dir"]}
        fork["objective"]["target"] = str(write_teacher(tmp_path / name, seed=seed))
        losses[name] = pretrain_plain(fork)[0]
    assert losses["other"] > losses["same"] + 0.02


def test_a_step_is_replayed(run: Tree) -> None:
    run["loop"] |= {"checkpoint_every_steps": 4, "keep_last": 99}
    logged = pretrain_plain(run)
    config = validate(RunFolder(run["run_dir"]).config_tree(), PretrainConfig, "test")
    found = replay(config, 4, torch.device("cpu"))
    losses = np.mean([clip.losses for clip in found.clips])
    assert losses == pytest.approx(logged[4], rel=1e-5)


def test_weights_of_a_finished_run_start_another_one(run: Tree) -> None:
    pretrain_plain(run)
    next_run = variant(run, "next") | {"init_from": f"{run['run_dir']}/encoder"}
    assert len(pretrain_plain(next_run)) == 8
    again = variant(run, "again") | {"init_from": run["run_dir"]}
    assert pretrain_plain(again)[0] < pretrain_plain(variant(run, "fresh"))[0]
