"""Regularisers: their values against direct evaluation, what is drawn, and how batches are cut."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.masks import MASKS
from support.ranks import pretrain_on_ranks, pretrain_plain, variant

from echojepa.config import validate
from echojepa.data.stream import StreamShape
from echojepa.errors import ConfigError
from echojepa.models.encoder import EncoderConfig, normalise
from echojepa.models.predictor import PredictorConfig
from echojepa.objectives.jepa import JepaConfig
from echojepa.objectives.objective import ModelConfig
from echojepa.objectives.regulariser import RegulariserConfig, SigregConfig, VicregConfig
from echojepa.pretrain import PretrainConfig, cut_batch
from echojepa.randomness import Seeds
from echojepa.runs.folder import read_lines

MODEL = ModelConfig(
    encoder=EncoderConfig(width=24, depth=2, num_heads=2, patch_size=4),
    predictor=PredictorConfig(width=12, depth=1, num_heads=2),
)
GRID = MODEL.encoder.grid(4, 24, 24)
GAUSSIAN = math.sqrt(2 * math.pi) * (1 - 1 / math.sqrt(3))
"""The mean of the statistic for Gaussian samples."""
SIGREG, VICREG = SigregConfig(group=4), VicregConfig(group=4)


def epps_pulley(x: torch.Tensor) -> float:
    """Of float64 numbers [n] against a standard Gaussian: the integral over all t, in closed form.

    The squared modulus, multiplied out, is a sum of Gaussian integrals (Epps and Pulley 1983).
    """
    n = len(x)
    pairs = (-(x[:, None] - x).square() / 2).exp().sum() * math.sqrt(2 * math.pi) / n**2
    singles = (-x.square() / 4).exp().sum() * 2 * math.sqrt(math.pi) / n
    return float(n * (pairs - singles + math.sqrt(2 * math.pi / 3)))


def test_sigreg_is_its_definition() -> None:
    """The mean over directions of the closed form; the integral's ends are below 1e-5."""
    embeddings = (0.7 * torch.randn(2, 16, 24) + 0.3).double()
    config = SigregConfig(group=16, num_directions=8, num_knots=41)
    drawn = config.draw(np.arange(32), 24, Seeds(3))
    found = config.statistics(embeddings, drawn)
    for group in range(2):
        projected = embeddings[group] @ drawn[0][group].double().T
        direct = np.mean([epps_pulley(x) for x in projected.T])
        assert float(found[group]) == pytest.approx(direct, abs=1e-4)


def test_the_published_number_of_points_is_enough() -> None:
    embeddings = torch.randn(4, 16, 24)
    drawn = SigregConfig(group=16).draw(np.arange(64), 24, Seeds(3))
    few, many = (
        SigregConfig(group=16, num_knots=knots).statistics(embeddings, drawn) for knots in (17, 401)
    )
    torch.testing.assert_close(few, many, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [4, 64])
def test_sigreg_of_gaussian_embeddings_is_near_its_mean(size: int) -> None:
    config = SigregConfig(group=size, num_directions=64)
    drawn = config.draw(np.arange(100 * size), 24, Seeds(3))
    found = config.statistics(torch.randn(100, size, 24), drawn)
    error = float(found.std()) / 10
    assert float(found.mean()) == pytest.approx(GAUSSIAN, abs=5 * error)


def test_sigreg_rises_with_every_kind_of_collapse() -> None:
    config = SigregConfig(group=64)
    drawn = config.draw(np.arange(64), 24, Seeds(3))
    gaussian = torch.randn(1, 64, 24)
    constant, shrunk = torch.zeros_like(gaussian), 0.2 * gaussian
    on_a_line = gaussian[..., :1] * torch.ones(24)
    healthy = float(config.statistics(gaussian, drawn))
    assert healthy < 2
    for collapsed in (constant, shrunk, on_a_line, gaussian + 3):
        assert float(config.statistics(collapsed, drawn)) > 3 * healthy
    point = math.sqrt(2 * math.pi) - 2 * math.sqrt(math.pi) + math.sqrt(2 * math.pi / 3)
    assert float(config.statistics(constant, drawn)) == pytest.approx(64 * point, rel=1e-4)


def test_directions_are_unit_vectors_of_the_sample_alone() -> None:
    (found,) = SIGREG.draw(np.arange(8, 24), 24, Seeds(3))
    assert found.shape == (4, 256, 24)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(4, 256))
    torch.testing.assert_close(found.mean(dim=(0, 1)), torch.zeros(24), atol=0.05, rtol=0)
    (part,) = SIGREG.draw(np.arange(16, 20), 24, Seeds(3))
    assert torch.equal(part[0], found[2])
    assert not torch.equal(found[0], found[1])
    (other,) = SIGREG.draw(np.arange(8, 12), 24, Seeds(4))
    assert not torch.equal(other[0], found[0])


def test_vicreg_is_its_definition() -> None:
    """Channel by channel, as Bardes et al. (2022) write equations 1 to 4."""
    embeddings = torch.randn(2, 5, 3, dtype=torch.float64) * torch.tensor([0.2, 1.0, 3.0])
    found = VicregConfig(group=5, covariance_weight=0.5).statistics(embeddings, [])
    for group in range(2):
        z = embeddings[group].numpy()
        covariance = np.cov(z.T)
        variance = np.mean(
            [max(0, 1 - math.sqrt(np.var(z[:, j], ddof=1) + 1e-4)) for j in range(3)]
        )
        others = sum(covariance[i, j] ** 2 for i in range(3) for j in range(3) if i != j) / 3
        assert float(found[group]) == pytest.approx(variance + 0.5 * others)


def test_vicreg_of_equal_embeddings_is_almost_one() -> None:
    assert float(VICREG.statistics(torch.ones(1, 4, 24), [])) == pytest.approx(0.99)


@pytest.mark.parametrize("target", ["ema", "online"])
@pytest.mark.parametrize("regulariser", [SIGREG, VICREG], ids=lambda r: r.kind)
def test_losses_are_those_of_groups_of_embeddings(
    regulariser: RegulariserConfig, target: str
) -> None:
    """The mean over what the learning encoder sees: contexts, and as its own target all tokens."""
    config = JepaConfig.model_validate(
        {"masks": MASKS, "target": target, "regulariser": regulariser}
    )
    objective = config.build(MODEL, GRID, Seeds(0))
    module = objective.module(torch.float32)
    pixels = torch.randint(0, 256, (8, 4, 24, 24, 3), dtype=torch.uint8)
    drawn = objective.draw(np.arange(8))
    losses = module(pixels, *drawn).losses
    assert objective.facts.losses == ("mask_0", "mask_1", "regulariser_0", "regulariser_1")
    assert losses.shape == (4, 8)
    clip, directions = normalise(pixels, torch.float32), drawn[2]
    for index, keep in enumerate(drawn[0]):
        views = [module.encoder(clip, keep), *([module.encoder(clip)] * (target == "online"))]
        values = []
        for view in views:
            pooled = view.mean(dim=1)
            parts = [[d[g : g + 1] for d in directions] for g in range(2)]
            values.append(
                [
                    float(
                        regulariser.statistics(pooled[None, 4 * g : 4 * g + 4], parts[g]).detach()
                    )
                    for g in range(2)
                ]
            )
        expected = regulariser.weight * np.mean(values, axis=0).repeat(4)
        torch.testing.assert_close(
            losses[2 + index].double().detach(), torch.from_numpy(expected), rtol=1e-4, atol=1e-5
        )


def test_gradients_flow_through_an_online_target_and_there_is_no_other() -> None:
    config = JepaConfig(masks=MASKS, target="online", regulariser=VICREG)
    objective = config.build(MODEL, GRID, Seeds(0))
    module = objective.module(torch.float32)
    assert not [
        n for n, p in module.named_parameters() if n.startswith("target") or not p.requires_grad
    ]
    assert not objective.facts.averages and objective.facts.exported == "encoder."
    pixels = torch.randint(0, 256, (4, 4, 24, 24, 3), dtype=torch.uint8)
    drawn = objective.draw(np.arange(4))
    gradients = []
    for stopped in (False, True):
        clip = normalise(pixels, torch.float32)
        whole = module.encoder(clip)[:, :, None]
        whole = whole.detach() if stopped else whole
        loss = torch.stack(module.predict(clip, whole, drawn[0], drawn[1]).losses).mean()
        gradients.append(torch.autograd.grad(loss, module.encoder.norm.weight)[0])
    losses = module(pixels, *drawn).losses[:2].mean()
    found = torch.autograd.grad(losses, module.encoder.norm.weight)[0]
    torch.testing.assert_close(found, gradients[0])
    assert not torch.allclose(found, gradients[1])


def test_features_alone_need_no_whole_groups() -> None:
    objective = JepaConfig(masks=MASKS, target="online", regulariser=SIGREG).build(
        MODEL, GRID, Seeds(0)
    )
    module = objective.module(torch.float32)
    pixels = torch.randint(0, 256, (3, 4, 24, 24, 3), dtype=torch.uint8)
    output = module(pixels)
    assert output.losses.shape == (0, 3)
    (features,) = output.features.values()
    torch.testing.assert_close(features, module.encoder(normalise(pixels, torch.float32)))


def test_an_online_target_without_regulariser_is_refused() -> None:
    with pytest.raises(ValueError, match="needs an objective.regulariser: constant features"):
        JepaConfig(target="online").check(MODEL)
    JepaConfig(target="online", regulariser=VICREG).check(MODEL)


def test_cuts_that_would_break_groups_are_refused() -> None:
    config = JepaConfig(regulariser=SIGREG)
    config.check_shape(StreamShape(24, 3, 8, 1, 8))
    for batch, micro in ((24, 6), (26, 8)):
        with pytest.raises(ConfigError, match=f"groups of 4 clips.*micro-batch of {micro}"):
            config.check_shape(StreamShape(batch, 3, micro, 1, micro))


@pytest.mark.parametrize(("group", "batch", "max_micro"), [(16, 24, 16), (8, 24, 4)])
def test_a_group_that_cannot_be_formed_is_refused_before_a_run(
    tree: dict[str, Any], group: int, batch: int, max_micro: int
) -> None:
    tree["objective"]["regulariser"] = {"kind": "vicreg", "group": group}
    tree["loop"]["global_batch"], tree["optimizer"]["max_micro_batch"] = batch, max_micro
    config = validate(tree, PretrainConfig, "test")
    with pytest.raises(ConfigError, match=f"groups of {group} clips do not fit"):
        cut_batch(config, 2)


def regularised(tree: dict[str, Any], kind: str, target: str) -> dict[str, Any]:
    """Ten steps of 12 clips in groups of four: two workers need a group of padding."""
    section: dict[str, Any] = {"kind": kind, "group": 4}
    section |= {"num_directions": 16} if kind == "sigreg" else {}
    tree["objective"] |= {"target": target, "regulariser": section}
    tree["loop"] |= {"num_steps": 10, "global_batch": 12, "log_every_steps": 1}
    tree["optimizer"]["max_micro_batch"] = 12
    return tree


def test_two_ranks_and_accumulation_train_as_one_process(tree: dict[str, Any]) -> None:
    tree = regularised(tree, "sigreg", "online")
    plain = pretrain_plain(variant(tree, "plain"))
    assert plain[-1] < plain[0]
    two = variant(tree, "two")
    np.testing.assert_allclose(pretrain_on_ranks(two, 2), plain, atol=1e-4)
    last = read_lines(Path(two["run_dir"]) / "metrics.jsonl")[-1]
    parts = [last[f"loss_{name}_{i}"] for name in ("mask", "regulariser") for i in range(2)]
    assert last["loss"] == pytest.approx(sum(parts) / 2)
    assert "momentum" not in last and "feature_std" in last
    card = (Path(two["run_dir"]) / "encoder" / "README.md").read_text()
    assert "SIGReg of groups of 4 clips" in card and "EMA" not in card
    tree["optimizer"]["max_micro_batch"] = 4
    np.testing.assert_allclose(pretrain_plain(variant(tree, "parts")), plain, atol=1e-4)


@pytest.mark.integration
def test_three_ranks_train_as_one_process_beside_an_average(tree: dict[str, Any]) -> None:
    tree = regularised(tree, "vicreg", "ema")
    plain = pretrain_plain(variant(tree, "plain"))
    np.testing.assert_allclose(pretrain_on_ranks(variant(tree, "three"), 3), plain, atol=1e-4)
