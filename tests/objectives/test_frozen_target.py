"""A frozen target: what is learnt of it, that it never changes, that no other takes its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from support.ranks import prepare, pretrain_on_ranks, pretrain_plain, run_ranks, variant
from support.teachers import write_teacher
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from echojepa.config import validate
from echojepa.cost import count_parameters
from echojepa.data.stream import StreamShape
from echojepa.errors import CheckpointError, ConfigError
from echojepa.models.encoder import EncoderConfig, normalise
from echojepa.models.predictor import PredictorConfig
from echojepa.models.weights import encoder_digest, load_encoder, read_companions
from echojepa.objectives.frozen_target import FrozenTarget, FrozenTargetConfig
from echojepa.objectives.masks import BlockMaskConfig, MaskConfig
from echojepa.objectives.objective import ModelConfig, Objective
from echojepa.pretrain import PretrainConfig
from echojepa.randomness import Seeds
from echojepa.replay import replay
from echojepa.runs.checkpoint import folder_of, read_state
from echojepa.runs.folder import RunFolder
from echojepa.runs.shards import ShardReader
from echojepa.train.engine import Engine, OptimizerConfig, PlainEngine, Schedule
from echojepa.train.zero_engine import ZeroEngine

MODEL = ModelConfig(
    encoder=EncoderConfig(width=24, depth=2, num_heads=2, patch_size=8),
    predictor=PredictorConfig(width=12, depth=1, num_heads=2),
)
GRID = MODEL.encoder.grid(4, 48, 48)
MASKS = MaskConfig(
    generators=(
        BlockMaskConfig(num_blocks=3, spatial_scale=0.2),
        BlockMaskConfig(num_blocks=1, spatial_scale=0.6),
    )
)
Tree = dict[str, Any]


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return write_teacher(tmp_path / "teacher")


def objective_of(folder: Path, model: ModelConfig = MODEL, **settings: Any) -> Objective:
    config = FrozenTargetConfig(masks=MASKS, target=str(folder), **settings).bound(model)
    return config.build(model, GRID, Seeds(0))


def module_of(objective: Objective) -> FrozenTarget:
    module = objective.module(torch.float32)
    objective.complete(module)
    assert isinstance(module, FrozenTarget)
    return module


def pixels_of(size: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (size, 4, 48, 48, 3), dtype=torch.uint8)


# --------------------------------------------------------------------------------- what is learnt


@torch.no_grad()
def test_the_loss_is_its_definition_with_a_target_of_another_size(teacher: Path) -> None:
    objective, pixels = objective_of(teacher), pixels_of()
    module = module_of(objective)
    contexts, hiddens = objective.draw(np.arange(3))
    output = module(pixels, contexts, hiddens)
    clip = normalise(pixels, torch.float32)
    features = load_encoder(teacher)(clip)
    assert features.shape[-1] == 64
    wanted = F.layer_norm(features, (64,))
    for g, (keep, hidden) in enumerate(zip(contexts, hiddens, strict=True)):
        found = module.predictor(module.encoder(clip, keep), keep, hidden, GRID)
        chosen = torch.stack([w[h] for w, h in zip(wanted, hidden, strict=True)])
        torch.testing.assert_close(output.losses[g], (found - chosen).abs().mean(dim=(1, 2)))
    torch.testing.assert_close(output.features["online"], module.encoder(clip, contexts[1]))


@torch.no_grad()
def test_without_masks_there_are_features_of_the_encoder_for_all_tokens(teacher: Path) -> None:
    objective, pixels = objective_of(teacher), pixels_of()
    module = module_of(objective)
    output = module(pixels)
    assert output.losses.shape == (0, 3)
    assert set(output.features) == {objective.facts.exported_features}
    expected = module.encoder(normalise(pixels, torch.float32))
    torch.testing.assert_close(output.features["online"], expected)


@torch.no_grad()
def test_a_model_of_one_level_learns_the_last_of_a_target_and_other_models_all(
    tmp_path: Path,
) -> None:
    folder, pixels = write_teacher(tmp_path / "levels", depth=2, num_levels=2), pixels_of()
    clip = normalise(pixels, torch.float32)
    two = MODEL.model_copy(update={"encoder": MODEL.encoder.model_copy(update={"num_levels": 2})})
    for model, levels in ((MODEL, False), (two, True)):
        objective = objective_of(folder, model)
        module = module_of(objective)
        assert module.predictor.predictor_proj.out_features == (1 + levels) * 64
        contexts, hiddens = objective.draw(np.arange(3))
        taught = load_encoder(folder)(clip, levels=levels)
        wanted = F.layer_norm(taught.unflatten(-1, (-1, 64)), (64,)).flatten(-2)
        context = module.encoder(clip, contexts[0], levels=levels)
        found = module.predictor(context, contexts[0], hiddens[0], GRID)
        chosen = torch.stack([w[h] for w, h in zip(wanted, hiddens[0], strict=True)])
        losses = module(pixels, contexts, hiddens).losses
        torch.testing.assert_close(losses[0], (found - chosen).abs().mean(dim=(1, 2)))


def test_visible_tokens_may_be_learnt_as_well(teacher: Path) -> None:
    predictor = MODEL.predictor.model_copy(update={"context_head": True})
    model = MODEL.model_copy(update={"predictor": predictor})
    objective = objective_of(teacher, model, context_weight=0.5)
    output = module_of(objective)(pixels_of(), *objective.draw(np.arange(3)))
    assert output.losses.shape == (4, 3)
    assert objective.facts.losses == ("mask_0", "mask_1", "context_0", "context_1")
    with pytest.raises(ValueError, match="need each other"):
        FrozenTargetConfig(target="x", context_weight=0.5).check(MODEL)


def test_operations_are_counted_with_the_targets_own_size(teacher: Path) -> None:
    objective = objective_of(teacher)
    counter = FlopCounterMode(display=False)
    module, pixels, drawn = module_of(objective), pixels_of(2), objective.draw(np.arange(2))
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        module(pixels, *drawn)
    expected = 2 * sum(p.flops for p in objective.passes())
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.01)
    assert [p.trained for p in objective.passes()] == [False, True, True, True, True]


def test_its_weights_are_counted_as_frozen(teacher: Path) -> None:
    objective = objective_of(teacher)
    with torch.device("meta"):
        found = count_parameters(objective.module(torch.float32), objective.facts.averages)
    size = sum(p.numel() for p in load_encoder(teacher).parameters())
    assert (found.num_averaged, found.num_frozen) == (0, size)


# ----------------------------------------------------------------------------- what does not fit


def test_a_target_with_other_tokens_is_refused_and_both_are_named(tmp_path: Path) -> None:
    for sizes in ({"patch_size": 16}, {"tubelet_size": 1}):
        folder = write_teacher(tmp_path / f"{sizes}", **sizes)
        text = r"target has tubelets of \d x \d+ x \d+, model.encoder tubelets of 2 x 8 x 8"
        with pytest.raises(ConfigError, match=text):
            objective_of(folder)


def test_a_target_without_the_levels_is_refused(teacher: Path) -> None:
    encoder = MODEL.encoder.model_copy(update={"num_levels": 2})
    with pytest.raises(ConfigError, match="the target has 1 levels, model.encoder 2"):
        objective_of(teacher, MODEL.model_copy(update={"encoder": encoder}))


def test_a_missing_target_ends_a_launch_before_any_cluster(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from echojepa.launch import pretrain

    def connected(*_: object) -> None:
        raise AssertionError("a cluster was started")

    monkeypatch.setattr(pretrain, "connected", connected)
    tree["objective"] |= {"kind": "frozen_target", "target": str(tmp_path / "nothing")}
    with pytest.raises(CheckpointError, match="not an encoder folder"):
        pretrain.launch(validate(tree, pretrain.PretrainJob, "test"), show_progress=False)
    assert not Path(tree["run_dir"]).exists()


def test_a_module_is_completed_with_the_stated_target_or_not_at_all(teacher: Path) -> None:
    objective = objective_of(teacher)
    module = objective.module(torch.float32)
    assert all(p.is_meta for p in module.target.parameters())
    write_teacher(teacher, seed=6)
    with pytest.raises(CheckpointError, match="the target is another encoder"):
        objective.complete(module)
    unbound = FrozenTargetConfig(masks=MASKS, target=str(teacher)).build(MODEL, GRID, Seeds(0))
    with pytest.raises(ConfigError, match="nothing says which target"):
        unbound.complete(module)
    stated = FrozenTargetConfig(target=str(teacher), target_sha256="0" * 64)
    with pytest.raises(CheckpointError, match=f"not {'0' * 64}"):
        stated.bound(MODEL)


def test_the_digest_is_that_of_weights_and_architecture(teacher: Path) -> None:
    before = encoder_digest(teacher)
    (teacher / "README.md").write_text("another card")
    assert encoder_digest(teacher) == before
    for name in ("config.json", "model.safetensors"):
        original = (teacher / name).read_bytes()
        (teacher / name).write_bytes(original.replace(b'"num_heads": 2', b'"num_heads": 4') + b" ")
        assert encoder_digest(teacher) != before
        (teacher / name).write_bytes(original)
    assert encoder_digest(teacher) == before


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
    with ShardReader(last) as reader:
        assert not [key for key in reader.shapes if "target" in key]
        exported = load_encoder(folder.encoder).state_dict()
        for name, weight in exported.items():
            assert torch.equal(weight, reader.whole(f"weight/encoder.{name}"))
    digest = encoder_digest(teacher)
    assert read_state(last)["config"]["objective"]["target_sha256"] == digest
    card = (folder.encoder / "README.md").read_text()
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
