"""A grid is its heads trained one by one; head and epoch are chosen on val and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.grids import (
    EF,
    VIEW,
    VIEWS,
    WIDTH,
    Alone,
    arranged,
    fractions,
    labels,
    samples,
)

from echojepa.errors import BadDataError, ConfigError, ManifestError
from echojepa.probes.grid.config import GridConfig
from echojepa.probes.grid.fit import Training, fit_grid, keep_views
from echojepa.probes.grid.samples import Batch
from echojepa.probes.metrics import classification_metrics, regression_metrics

QUICK: dict[str, Any] = {
    "num_heads": 4,
    "lr": (2e-2, 5e-3),
    "weight_decay": (0.1,),
    "warmup_epochs": (1,),
    "epochs": 6,
}


def quick(**changes: Any) -> GridConfig:
    """A grid of two heads that trains in a moment."""
    return GridConfig(**{**QUICK, **changes})


TWELVE: dict[str, Any] = {
    "num_heads": 4,
    "lr": (5e-2, 1e-2, 2e-3, 5e-4),
    "weight_decay": (0.001, 0.1, 2.0),
    "epochs": 5,
}
CASES: dict[str, tuple[dict[str, Any], tuple[int, int], bool]] = {
    "attentive": ({}, (1, 1), False),
    "attentive, two views of two clips": ({}, (2, 2), False),
    "attentive, classes, focal": ({"loss": "focal", "class_weights": True}, (2, 1), True),
    "attentive, two warm-ups": ({"lr": (1e-2, 1e-3), "warmup_epochs": (0, 3)}, (1, 2), False),
    "attentive, depth 2": ({"depth": 2, "lr": (1e-2, 1e-3)}, (2, 1), True),
    "linear": ({"head": "linear"}, (2, 2), False),
    "mlp": ({"head": "mlp"}, (1, 1), True),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_grid_is_its_heads_trained_one_by_one(case: str, precision: str) -> None:
    changes, slots, is_classes = CASES[case]
    config = GridConfig(**{**TWELVE, **changes, "precision": precision, "seed": 3})
    tokens, present, splits = samples(slots=slots)
    numbers = fractions(tokens, present)
    values = np.where(numbers > 60, "high", np.where(numbers > 52, "mid", "low"))
    known = labels(values if is_classes else numbers, splits, VIEW if is_classes else EF)
    training = Training(config, arranged(tokens, present, slots), known)
    alone = [Alone(config, head, training, WIDTH, slots) for head in range(len(config.heads))]
    for epoch in range(config.epochs):
        training.train(epoch)
        training.judge()
    shown = torch.from_numpy(tokens).to(config.dtype), torch.from_numpy(present)
    is_train = splits == "train"
    if is_classes:
        _, index, counts = np.unique(values[is_train], return_inverse=True, return_counts=True)
        truth, weights = torch.from_numpy(index), np.ones(len(index))
        if config.class_weights:
            weights = len(index) / (len(counts) * counts[index])
    else:
        mine = numbers[is_train]
        truth = torch.from_numpy((mine - mine.mean()) / mine.std()).to(config.dtype)
        weights = np.ones(len(mine))
    training.heads.eval()
    with torch.no_grad():
        said = training.heads(Batch(shown[0][~is_train], shown[1][~is_train]))
    for head, other in enumerate(alone):
        other.fit(
            *(part[is_train] for part in shown), truth, torch.from_numpy(weights).to(shown[0])
        )
        expected = other.module(*(part[~is_train] for part in shown))
        if precision == "float32":
            torch.testing.assert_close(said[head], expected, rtol=0, atol=1e-4)
            continue
        for name, parameter in other.module.named_parameters():
            found = training.heads.get_parameter(name)[head]
            torch.testing.assert_close(found, parameter, rtol=0, atol=1e-8, msg=name)
    spread = said.std(dim=0).mean()
    assert spread > 0.01, "heads of different settings differ"


def test_one_head_that_diverges_leaves_the_others_as_they_are() -> None:
    tokens, present, splits = samples((41, 20, 20), (2, 1))
    known = labels(fractions(tokens, present), splits)
    shown = arranged(tokens, present, (2, 1))
    runs = {}
    for rate in (1e-3, 1e30):
        training = Training(quick(lr=(rate, 5e-3)), shown, known)
        for epoch in range(6):
            training.train(epoch)
            training.judge()
        runs[rate] = training
    wild = runs[1e30].result()
    assert [row.diverged for row in wild.table] == [True, False]
    assert not all(p[0].isfinite().all() for p in runs[1e30].heads.parameters())
    for one, other in zip(
        runs[1e-3].heads.parameters(), runs[1e30].heads.parameters(), strict=True
    ):
        assert torch.equal(one[1], other[1])
    assert wild.table[1] == runs[1e-3].result().table[1]
    assert wild.record.chosen.head == 1
    assert len(wild.table[0].val) < 6
    assert np.isfinite(wild.predict(shown, np.arange(81))).all()


def test_all_heads_diverging_is_an_error_and_ends_the_fit() -> None:
    tokens, present, splits = samples()
    known = labels(fractions(tokens, present), splits)
    with pytest.raises(ConfigError, match="all 2 heads diverged"):
        fit_grid(quick(lr=(1e30, 1e29), epochs=1000), arranged(tokens, present), known)


@pytest.mark.parametrize("head", ["linear", "attentive"])
def test_a_signal_is_found_in_raw_units(head: str) -> None:
    tokens, present, splits = samples((160, 60, 60), (2, 1))
    values = fractions(tokens, present)
    config = quick(head=head, lr=(3e-2, 1e-2), epochs=25)
    fit = fit_grid(config, arranged(tokens, present, (2, 1)), labels(values, splits))
    test = np.flatnonzero(splits == "test")
    scores = regression_metrics(values[test], fit.predict(arranged(tokens, present, (2, 1)), test))
    assert scores["r2"] > 0.6
    assert abs(scores["bias"]) < 2
    moved = fit_grid(config, arranged(tokens, present, (2, 1)), labels(values * 1e4 - 7e5, splits))
    np.testing.assert_allclose(
        moved.predict(arranged(tokens, present, (2, 1)), test),
        fit.predict(arranged(tokens, present, (2, 1)), test) * 1e4 - 7e5,
        rtol=1e-3,
    )


@pytest.mark.parametrize("head", ["linear", "attentive"])
def test_random_labels_score_at_chance(head: str) -> None:
    areas, correlations = [], []
    for seed in range(8):
        tokens, present, splits = samples((60, 40, 60), seed=seed)
        shown, random = arranged(tokens, present), np.random.default_rng(100 + seed)
        test = np.flatnonzero(splits == "test")
        names, numbers = random.choice(["a", "b"], len(splits)), random.normal(55, 10, len(splits))
        of_classes = fit_grid(quick(head=head), shown, labels(names, splits, VIEW))
        said = of_classes.predict(shown, test)
        scores = classification_metrics(names[test], said, np.array(["a", "b"]))
        areas.append(scores["auroc"])
        of_numbers = fit_grid(quick(head=head), shown, labels(numbers, splits))
        correlations.append(
            regression_metrics(numbers[test], of_numbers.predict(shown, test))["pearson"]
        )
    assert abs(np.mean(areas) - 0.5) < 0.08  # three standard errors
    assert abs(np.mean(correlations)) < 0.14


@pytest.mark.parametrize("settings", [{}, {"head": "linear"}], ids=str)
def test_the_test_split_changes_nothing(settings: dict[str, Any]) -> None:
    """Neither its labels nor its features, which are not even finite."""
    tokens, present, splits = samples()
    values = fractions(tokens, present)
    before = fit_grid(quick(**settings), arranged(tokens, present), labels(values, splits))
    wild, other = tokens.copy(), values.copy()
    wild[61:] = np.nan
    other[61:] = np.random.default_rng(2).permutation(values[61:]) * 100
    after = fit_grid(quick(**settings), arranged(wild, present), labels(other, splits))
    assert after.record == before.record
    val = np.flatnonzero(splits == "val")
    shown = arranged(tokens, present)
    assert np.array_equal(after.predict(shown, val), before.predict(shown, val))


@pytest.mark.parametrize("head", ["attentive", "mlp"])
def test_the_weights_are_those_of_the_chosen_epoch_and_its_score_is_what_they_earn(
    head: str,
) -> None:
    tokens, present, splits = samples()
    values = fractions(tokens, present)
    config = quick(head=head, lr=(0.2, 0.1), epochs=12)
    fit = fit_grid(config, arranged(tokens, present), labels(values, splits))
    chosen = fit.record.chosen
    scores = fit.table[chosen.head].val
    assert scores[chosen.epoch] == min(min(row.val) for row in fit.table)
    assert chosen.epoch < 11, "or the test shows nothing"
    val = np.flatnonzero(splits == "val")
    mae = np.abs(fit.predict(arranged(tokens, present), val) - values[val]).mean()
    assert mae == pytest.approx(scores[chosen.epoch], rel=1e-6)


def test_val_is_judged_by_studies_where_the_task_judges_studies() -> None:
    tokens, present, splits = samples()
    values = np.repeat(fractions(tokens, present)[::3], 3)[:81]
    studies = np.repeat([f"study{i:02d}" for i in range(27)], 3)
    val = np.flatnonzero(splits == "val")
    for task in (EF, EF.model_copy(update={"level": "clip"})):
        known = labels(values, splits, task, studies)
        fit = fit_grid(quick(), arranged(tokens, present), known)
        wrong = fit.predict(arranged(tokens, present), val) - values[val]
        each = [wrong[studies[val] == name].mean() for name in np.unique(studies[val])]
        mae = np.abs(each if task is EF else wrong).mean()
        chosen = fit.record.chosen
        assert fit.table[chosen.head].val[chosen.epoch] == pytest.approx(mae, rel=1e-6)


def test_no_improvement_ends_the_fit_early() -> None:
    tokens, present, splits = samples()
    known = labels(fractions(tokens, present), splits)
    settings = {"lr": (0.3, 0.1), "epochs": 60}
    whole = fit_grid(quick(**settings), arranged(tokens, present), known)
    fit = fit_grid(quick(**settings, patience=4), arranged(tokens, present), known)
    ran = len(fit.table[0].val)
    assert ran < 60
    improved = [
        epoch
        for row in whole.table
        for epoch in range(60)
        if epoch == 0 or row.val[epoch] < min(row.val[:epoch])
    ]
    waits = [e for e in range(60) if not {e - 3, e - 2, e - 1, e} & set(improved)]
    assert ran == waits[0] + 1
    assert [row.val for row in fit.table] == [row.val[:ran] for row in whole.table]


def test_a_head_does_not_depend_on_its_grid() -> None:
    tokens, present, splits = samples(slots=(2, 2))
    known, shown = labels(fractions(tokens, present), splits), arranged(tokens, present, (2, 2))
    dropping = {"view_dropout": 0.3, "head": "mlp", "precision": "float64"}
    grid = fit_grid(quick(lr=(5e-2, 1e-2, 1e-3), **dropping), shown, known)
    alone = fit_grid(quick(lr=(1e-2,), **dropping), shown, known)
    assert alone.table[0].val == pytest.approx(grid.table[1].val, rel=1e-9)


def test_views_are_dropped_at_random_and_one_stays() -> None:
    present = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [0, 1, 1, 0]], dtype=torch.bool)
    many = present.repeat(2000, 1)
    draws = np.random.default_rng(0).random((6000, 2))
    kept = keep_views(many, draws, 0.4)
    assert kept.any(dim=1).all()
    assert not (kept & ~many).any()
    both = kept[::3].unflatten(1, (2, 2))
    assert torch.equal(both[..., 0], both[..., 1]), "the clips of a view go together"
    assert torch.equal(kept[1::3], many[1::3]), "a single view stays"
    of_first = kept[::3, 0].float().mean().item()
    assert of_first == pytest.approx(0.6 + 0.4 * 0.4 / 2, abs=0.03)
    assert torch.equal(keep_views(many, draws, 1e-9), many)


def test_views_are_dropped_in_training_only() -> None:
    """Val is scored on all that is there, and training sees other batches than without."""
    tokens, present, splits = samples(slots=(2, 1))
    present[:] = True
    values = fractions(tokens, present)
    fits = {
        chance: fit_grid(
            quick(view_dropout=chance), arranged(tokens, present, (2, 1)), labels(values, splits)
        )
        for chance in (0.0, 0.5)
    }
    assert fits[0.0].table != fits[0.5].table
    val = np.flatnonzero(splits == "val")
    for fit in fits.values():
        chosen = fit.record.chosen
        mae = np.abs(fit.predict(arranged(tokens, present, (2, 1)), val) - values[val]).mean()
        assert fit.table[chosen.head].val[chosen.epoch] == pytest.approx(mae, rel=1e-6)
    assert fits[0.5].record.shape.views == VIEWS


def test_what_cannot_be_fitted_is_said() -> None:
    tokens, present, splits = samples()
    values, shown = fractions(tokens, present), arranged(tokens, present)
    with pytest.raises(ConfigError, match="5 attention heads do not divide the width 16"):
        fit_grid(quick(num_heads=5), shown, labels(values, splits))
    with pytest.raises(ManifestError, match="'val' has no samples"):
        fit_grid(quick(), shown, labels(values, np.where(splits == "val", "test", splits)))
    with pytest.raises(ManifestError, match="1 different values"):
        fit_grid(quick(), shown, labels(np.full(81, 55.0), splits))
    with pytest.raises(ValueError, match="80 labels of 81 samples"):
        fit_grid(quick(), shown, labels(values[:80], splits[:80]))
    absent = present.copy()
    absent[7] = False
    with pytest.raises(BadDataError, match="sample 7 has no clip that is present"):
        fit_grid(quick(), arranged(tokens, absent), labels(values, splits))
    tokens[50, 0, 3, 2] = np.inf
    with pytest.raises(BadDataError, match="sample 50 has features that are not finite"):
        fit_grid(quick(), arranged(tokens, np.ones_like(present)), labels(values, splits))
