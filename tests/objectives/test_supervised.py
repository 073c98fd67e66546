"""Supervised learning on the engine of all objectives: what is compared, and that it learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from support.exported import card_of_encoder
from support.ranks import pretrain_on_ranks, pretrain_plain, variant
from support.teachers import GRID, MODEL, pixels_of
from torch.nn import functional as F

from echojepa.config import validate
from echojepa.data.block import DataConfig
from echojepa.errors import ManifestError
from echojepa.models.encoder import normalise
from echojepa.objectives.objective import Objective
from echojepa.objectives.supervised import Supervised, SupervisedConfig
from echojepa.pretrain import PretrainConfig
from echojepa.randomness import Seeds
from echojepa.runs.audit import audit_run
from echojepa.runs.folder import RunFolder

Tree = dict[str, Any]
LABELS = [
    {"column": "lvef", "kind": "regression", "views": ["A4C"], "weight": 2.0},
    {"column": "view", "kind": "classification"},
]


@pytest.fixture
def objective(phantom_manifest: Path) -> Objective:
    config = SupervisedConfig.model_validate({"labels": LABELS})
    return config.build(MODEL, GRID, Seeds(0), DataConfig(manifest=str(phantom_manifest)))


@torch.no_grad()
def test_the_loss_is_its_definition(objective: Objective, phantom_manifest: Path) -> None:
    rows = pq.read_table(phantom_manifest).to_pylist()
    train = [row for row in rows if row["split"] == "train"][:3]  # A4C and PSAX-PM in turn
    assert [row["view"] for row in train] == ["A4C", "PSAX-PM", "A4C"]
    module, pixels = objective.module(torch.float32), pixels_of(3)
    assert isinstance(module, Supervised)
    [[ef, view]] = objective.draw(np.arange(3), [row["clip_id"] for row in train])
    output = module(pixels, [ef, view])
    tokens = module.encoder(normalise(pixels, torch.float32))
    torch.testing.assert_close(output.features["online"], tokens)
    pooled = tokens.mean(dim=1)
    number, logits = (head(pooled) for head in module.heads)
    error = 2.0 * (number[:, 0] - ef).abs()
    expected = [error[0], torch.tensor(0.0), error[2]]  # the second clip has no label
    torch.testing.assert_close(output.losses[0], torch.stack(expected))
    torch.testing.assert_close(
        output.losses[1], F.cross_entropy(logits, torch.tensor([0, 1, 0]), reduction="none")
    )


def test_a_clip_without_a_label_moves_nothing(objective: Objective) -> None:
    module = objective.module(torch.float32)
    assert isinstance(module, Supervised)
    losses = module(pixels_of(2), *objective.draw(np.arange(2), ["unknown", ""])).losses
    losses.sum().backward()
    assert not losses.any()
    assert all(not p.grad.any() for p in module.parameters() if p.grad is not None)


def test_it_can_learn_numbers_and_classes_by_heart(
    objective: Objective, phantom_manifest: Path
) -> None:
    torch.manual_seed(0)
    rows = pq.read_table(phantom_manifest).to_pylist()
    clip_ids = [row["clip_id"] for row in rows if row["split"] == "train"]
    module, pixels = objective.module(torch.float32), pixels_of(len(clip_ids))
    drawn = objective.draw(np.arange(len(clip_ids)), clip_ids)
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        by_label = module(pixels, *drawn).losses.mean(dim=1)
        by_label.sum().backward()
        optimizer.step()
        losses.append(by_label.detach())
    assert (losses[-1] < 0.3 * losses[0]).all()


def test_features_need_no_labels(objective: Objective) -> None:
    output = objective.module(torch.float32)(pixels_of(2))
    assert output.losses.shape == (0, 2) and output.features["online"].shape == (2, 72, 24)


def test_a_label_is_named_once() -> None:
    with pytest.raises(ValueError, match="names a column twice"):
        SupervisedConfig.model_validate({"labels": [LABELS[1], LABELS[1]]})


# ---------------------------------------------------------------------------------------- in a run


@pytest.fixture
def run(tree: Tree) -> Tree:
    tree["objective"] = {"kind": "supervised", "labels": LABELS}
    return tree


def test_two_ranks_then_one_equal_an_undisturbed_run(run: Tree) -> None:
    undisturbed = pretrain_plain(variant(run, "plain"))
    resumed = variant(run, "resumed")
    resumed["loop"]["stop_after_step"] = 4
    pretrain_on_ranks(resumed, 2)
    resumed["loop"]["stop_after_step"] = None
    np.testing.assert_allclose(pretrain_on_ranks(resumed, 1), undisturbed, atol=1e-4)
    folder = RunFolder(resumed["run_dir"])
    audit_run(folder).raise_if_unclean(resumed["run_dir"])
    card = card_of_encoder(folder, 8)
    assert "trained with labels" in card and "momentum" not in card
    last = json.loads((folder.path / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"loss_lvef", "loss_view"} <= last.keys() and "momentum" not in last


def test_labels_that_are_not_there_end_a_launch_at_once(run: Tree) -> None:
    run["objective"]["labels"] = [{"column": "nope", "kind": "regression"}]
    with pytest.raises(ManifestError, match="nope"):
        validate(run, PretrainConfig, "test").bound()
