"""A frozen target: what is learnt of it, and which targets are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.paths import DATA
from support.teachers import GRID, MASKS, MODEL, module_of, objective_of, pixels_of, write_teacher
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from echojepa.config import validate
from echojepa.cost import count_parameters, footprint
from echojepa.data.stream import StreamShape
from echojepa.errors import CheckpointError, ConfigError
from echojepa.models.encoder import normalise
from echojepa.models.formats.import_weights import ImportConfig, import_weights
from echojepa.models.weights import load_encoder
from echojepa.objectives.frozen_target import FrozenTargetConfig
from echojepa.randomness import Seeds

Tree = dict[str, Any]


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return write_teacher(tmp_path / "teacher")


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


def test_imported_weights_of_vjepa2_are_a_target(tmp_path: Path) -> None:
    heads = ImportConfig(num_heads=4, predictor_heads=4, size=64)
    import_weights(DATA / "vjepa2_tiny.pt", tmp_path / "imported", heads)
    encoder = MODEL.encoder.model_copy(update={"patch_size": 16})
    model = MODEL.model_copy(update={"encoder": encoder})
    grid = encoder.grid(4, 64, 64)
    config = FrozenTargetConfig(masks=MASKS, target=str(tmp_path / "imported")).bound(model)
    objective = config.build(model, grid, Seeds(0))
    pixels = torch.zeros(1, 4, 64, 64, 3, dtype=torch.uint8)
    losses = module_of(objective)(pixels, *objective.draw(np.arange(1))).losses
    assert losses.shape == (2, 1) and losses.isfinite().all()


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
    module, passes = module_of(objective), objective.passes()
    (keep, _), (hidden, _) = objective.draw(np.arange(2))
    context = torch.zeros(*keep.shape, 24)
    for part, inputs, expected in (
        (module.target, (normalise(pixels_of(2), torch.float32),), passes[0]),
        (module.predictor, (context, keep, hidden, GRID), passes[2]),
    ):
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            part(*inputs)
        assert counter.get_total_flops() == pytest.approx(2 * expected.flops, rel=0.01)
    assert [p.trained for p in passes] == [False, True, True, True, True]


def test_its_weights_are_counted_as_frozen(teacher: Path) -> None:
    objective = objective_of(teacher)
    with torch.device("meta"):
        found = count_parameters(objective.module(torch.float32), objective.facts.averages)
    size = sum(p.numel() for p in load_encoder(teacher).parameters())
    assert (found.num_averaged, found.num_frozen) == (0, size)
    shape = StreamShape(2, 1, 2, 1, 2)
    needed = footprint(found, objective.passes(), shape, bytes_per_number=2, recompute=False)
    assert needed.states == 18 * found.num_trained + 2 * size
    assert needed.checkpoint == 12 * found.num_trained


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
