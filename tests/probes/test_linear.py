"""Probes: they find what is there, choose on validation, and speak in raw units."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support.bench import baseline_result, linear_result

from echojepa.probes.linear import fit_linear
from echojepa.probes.metrics import regression_metrics
from echojepa.probes.tasks import Labels, Task

Floats = NDArray[np.float64]
EF = Task(name="ejection fraction", label="lvef", kind="regression", unit="%")
VIEW = Task(name="view", label="view", kind="classification")
SPLITS = np.repeat(["train", "val", "test"], [120, 60, 60])


def labels(
    values: NDArray[np.generic],
    splits: NDArray[np.str_] = SPLITS,
    task: Task = EF,
    studies: NDArray[np.str_] | None = None,
) -> Labels:
    """Labels of as many clips, in the order train, val, test; each a study of its own."""
    ids = [f"clip{i:04d}" for i in range(len(values))]
    of = np.array(ids) if studies is None else studies
    return Labels(task, ids, of, of, splits, values)


def noise(num_features: int = 10, seed: int = 0) -> Floats:
    """Features that know nothing, [240, D]."""
    return np.random.default_rng(seed).normal(size=(240, num_features))


def fractions(features: Floats) -> Floats:
    """Ejection fractions in percent that depend linearly on the features, with some noise."""
    weights = np.linspace(-4, 4, features.shape[1])
    return 55 + features @ weights + noise(1, seed=9)[:, 0]


def test_a_linear_signal_is_recovered_in_raw_units() -> None:
    features = noise()
    values = fractions(features)
    result = linear_result(labels(values), "pretrained", features)
    assert result.test["r2"] > 0.95
    assert result.test["mae"] < 1.2
    assert np.array_equal(result.predictions.truth, values[180:])
    assert abs(result.predictions.predicted.mean() - 55) < 3
    assert result.predictions.predicted.std() == pytest.approx(values[180:].std(), rel=0.15)
    assert result.test == regression_metrics(result.predictions.truth, result.predictions.predicted)


@pytest.mark.parametrize(("scale", "offset"), [(1e-3, 0.0), (1e4, -5e5)])
def test_units_of_features_and_labels_do_not_matter(scale: float, offset: float) -> None:
    features = noise()
    values = fractions(features)
    plain = linear_result(labels(values), "a", features)
    moved = linear_result(labels(values), "a", features * scale + offset)
    np.testing.assert_allclose(moved.predictions.predicted, plain.predictions.predicted, rtol=1e-6)
    other = linear_result(labels(values * scale + offset), "a", features)
    np.testing.assert_allclose(
        other.predictions.predicted, plain.predictions.predicted * scale + offset, rtol=1e-6
    )
    assert other.test["r2"] == pytest.approx(plain.test["r2"])


@pytest.mark.parametrize("seed", range(3))
def test_noise_predicts_nothing(seed: int) -> None:
    values = fractions(noise(seed=7))
    result = linear_result(labels(values), "random", noise(60, seed=seed))
    assert result.test["r2"] < 0.1


def test_classes_are_recovered() -> None:
    features = noise()
    views = np.array(["A4C", "PLAX", "PSAX"])[features[:, :3].argmax(axis=1)]
    result = linear_result(labels(views, task=VIEW), "pretrained", features)
    assert result.test["balanced_accuracy"] > 0.8
    assert result.test["auroc"] > 0.95
    assert result.predictions.classes.tolist() == ["A4C", "PLAX", "PSAX"]
    assert (result.predictions.truth == result.predictions.predicted).mean() == pytest.approx(
        result.test["accuracy"]
    )
    chance = linear_result(labels(views, task=VIEW), "random", noise(seed=3))
    assert abs(chance.test["balanced_accuracy"] - 1 / 3) < 0.2


def misleading() -> tuple[Floats, Floats]:
    """Features whose signal holds in train and val, and is reversed in test."""
    features = noise()
    values = fractions(features)
    values[180:] = 110 - values[180:]
    return features, values


def test_the_strength_is_chosen_on_validation_and_not_on_test() -> None:
    features, values = misleading()
    errors = {}
    for strength in (10.0**e for e in range(-2, 6)):
        model = make_pipeline(StandardScaler(), Ridge(alpha=strength))
        model.fit(features[:120], values[:120])
        predicted = model.predict(features)
        errors[strength] = [
            np.abs(predicted[part] - values[part]).mean()
            for part in (slice(120, 180), slice(180, 240))
        ]
    on_val = min(errors, key=lambda strength: errors[strength][0])
    on_test = min(errors, key=lambda strength: errors[strength][1])
    assert on_val < on_test
    result = linear_result(labels(values), "a", features)
    assert result.chosen == {"strength": pytest.approx(on_val)}
    assert [result.val["mae"], result.test["mae"]] == pytest.approx(errors[on_val])
    assert result.test["r2"] < -1


@pytest.mark.parametrize("task", [EF, VIEW], ids=lambda task: task.kind)
def test_the_test_split_touches_nothing_but_the_test_scores(task: Task) -> None:
    features = noise()
    values = fractions(features)
    truth = values if task is EF else np.where(values > 55, "high", "low")
    before = linear_result(labels(truth, task=task), "a", features)
    wild = features.copy()
    wild[180:] = 1e3 * noise(seed=5)[180:]
    shuffled = truth.copy()
    shuffled[180:] = shuffled[:179:-1]
    after = linear_result(labels(shuffled, task=task), "a", wild)
    assert (after.chosen, after.val) == (before.chosen, before.val)
    assert after.test != before.test


def test_rows_are_told_apart_by_split_not_by_place() -> None:
    features = noise()
    values = fractions(features)
    order = np.random.default_rng(1).permutation(240)
    plain = linear_result(labels(values), "a", features)
    mixed = linear_result(labels(values[order], SPLITS[order]), "a", features[order])
    assert mixed.test == pytest.approx(plain.test)
    np.testing.assert_array_equal(
        np.sort(mixed.predictions.truth), np.sort(plain.predictions.truth)
    )


def test_a_slot_that_training_lacks_has_no_say() -> None:
    features = noise()
    features[:, 4] = np.nan
    wild = features[180:].copy()
    wild[:, 4] = 1e6
    values, ones = fractions(noise())[:120], np.ones(120)
    for known in (values, np.where(values > 55, "high", "low")):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            probe = fit_linear(features[:120], known, ones, lambda probe: probe.strength)
        assert np.array_equal(probe(wild), probe(features[180:]))
        assert np.isfinite(probe(wild)).all() and np.isfinite(probe.mean).all()


def test_the_baseline_of_a_number_is_the_training_mean() -> None:
    values = np.array([50.0, 60.0, 70.0, 61.0, 40.0, 62.0])
    splits = np.array(["train", "train", "train", "val", "test", "test"])
    result = baseline_result(labels(values, splits))
    assert result.predictions.predicted.tolist() == [60.0, 60.0]
    assert result.predictions.truth.tolist() == [40.0, 62.0]
    assert result.test["mae"] == pytest.approx(11.0)
    assert result.test["rmse"] == pytest.approx(np.sqrt(202))
    assert result.test["r2"] == pytest.approx(1 - 404 / 242)
    assert result.test["pearson"] == 0.0
    assert result.val["mae"] == pytest.approx(1.0)
    assert result.chosen is None


def test_the_baseline_of_classes_is_their_frequency() -> None:
    values = np.array(["A4C", "A4C", "PLAX", "A4C", "PLAX", "PLAX", "A4C", "PLAX", "PLAX"])
    splits = np.array(["train"] * 3 + ["val"] * 2 + ["test"] * 4)
    result = baseline_result(labels(values, splits, VIEW))
    assert result.predictions.predicted.tolist() == ["A4C"] * 4
    assert result.test["accuracy"] == pytest.approx(0.25)
    assert result.test["balanced_accuracy"] == pytest.approx(0.5)
    assert result.test["auroc"] == pytest.approx(0.5)
    assert result.val["accuracy"] == 0.5
    assert result.predictions.classes.tolist() == ["A4C", "PLAX"]


def test_a_study_of_forty_clips_weighs_as_one_of_two() -> None:
    """In the scores: their clips are averaged. And in the fit: together they count as much."""
    features = noise()
    values = fractions(features)
    times = np.ones(240, int)
    times[[3, 50, 190, 200]] = 40
    names = np.array([f"study{i:03d}" for i in range(240)])
    plain = linear_result(labels(values, studies=names), "a", features)
    repeated = labels(values.repeat(times), SPLITS.repeat(times), studies=names.repeat(times))
    found = linear_result(repeated, "a", features.repeat(times, axis=0))
    assert len(found.predictions.ids) == 60
    assert found.test == pytest.approx(plain.test, rel=1e-6)
    by_clip = EF.model_copy(update={"level": "clip"})
    counted = labels(
        values.repeat(times), SPLITS.repeat(times), by_clip, studies=names.repeat(times)
    )
    assert len(linear_result(counted, "a", features.repeat(times, axis=0)).predictions.ids) > 130


def test_of_equally_good_probes_the_simplest_is_taken() -> None:
    """Constant features fit alike whatever the strength."""
    result = linear_result(labels(fractions(noise())), "a", np.ones((240, 3)))
    assert result.chosen == {"strength": 1e5}


def test_rare_classes_weigh_in_the_choice() -> None:
    """With 5% of one class, saying always the other is 95% accurate, and worth nothing."""
    features = noise(seed=2)
    rare = np.where(features[:, 0] > np.quantile(features[:, 0], 0.95), "rare", "common")
    result = linear_result(labels(rare, task=VIEW), "a", features)
    assert result.val["balanced_accuracy"] > 0.6
    assert result.test["auprc"] > 0.5


def test_random_labels_score_at_chance() -> None:
    """On average: a single draw of 60 labels may be lucky."""
    correlations, areas = [], []
    for seed in range(8):
        random, features = np.random.default_rng(seed), noise(seed=seed)
        numbers = linear_result(labels(random.normal(55, 10, 240)), "a", features)
        names = random.choice(["A4C", "PLAX", "SC4C"], 240)
        classes = linear_result(labels(names, task=VIEW), "a", features)
        correlations.append(numbers.test["pearson"])
        areas.append(classes.test["auroc"])
    assert abs(np.mean(correlations)) < 0.14  # three standard errors
    assert abs(np.mean(areas) - 0.5) < 0.055


def test_a_class_that_training_lacks_is_named_and_counted() -> None:
    views = np.array(["A4C", "PLAX"])[(noise()[:, 0] > 0).astype(int)]
    views[200:205] = "SC4C"
    result = linear_result(labels(views, task=VIEW), "a", noise())
    assert result.predictions.unknown_classes == ["SC4C"]
    assert len(result.predictions.truth) == 60
    assert result.test["accuracy"] <= 55 / 60


def test_cutoffs_are_told_apart_by_the_numbers() -> None:
    task = EF.model_copy(update={"cutoffs": (50.0, 40.0)})
    features = noise()
    result = linear_result(labels(fractions(features), task=task), "a", features)
    assert result.test["auroc_below_50"] > 0.95
    assert "auroc_below_50" in result.intervals and "auroc_below_40" in result.test
