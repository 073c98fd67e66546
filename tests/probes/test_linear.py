"""Probes: they find what is there, choose on validation, and speak in raw units."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from echojepa.probes.linear import fit_baseline, fit_probe
from echojepa.probes.metrics import regression_metrics
from echojepa.probes.tasks import Labels, Task

Floats = NDArray[np.float64]
EF = Task(name="ejection fraction", label="lvef", kind="regression", unit="%")
VIEW = Task(name="view", label="view", kind="classification")
SPLITS = np.repeat(["train", "val", "test"], [120, 60, 60])


def labels(values: NDArray[np.generic], splits: NDArray[np.str_] = SPLITS) -> Labels:
    """Labels of as many clips, in the order train, val, test."""
    ids = [f"clip{i}" for i in range(len(values))]
    return Labels(ids, np.array(ids), splits, values)


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
    result = fit_probe(EF, labels(values), "pretrained", features)
    assert result.test["r2"] > 0.95
    assert result.test["mae"] < 1.2
    assert np.array_equal(result.truth, values[180:])
    assert abs(result.predicted.mean() - 55) < 3
    assert result.predicted.std() == pytest.approx(values[180:].std(), rel=0.15)
    assert result.test == regression_metrics(result.truth, result.predicted)


@pytest.mark.parametrize(("scale", "offset"), [(1e-3, 0.0), (1e4, -5e5)])
def test_units_of_features_and_labels_do_not_matter(scale: float, offset: float) -> None:
    features = noise()
    values = fractions(features)
    plain = fit_probe(EF, labels(values), "a", features)
    moved = fit_probe(EF, labels(values), "a", features * scale + offset)
    np.testing.assert_allclose(moved.predicted, plain.predicted, rtol=1e-6)
    other = fit_probe(EF, labels(values * scale + offset), "a", features)
    np.testing.assert_allclose(other.predicted, plain.predicted * scale + offset, rtol=1e-6)
    assert other.test["r2"] == pytest.approx(plain.test["r2"])


@pytest.mark.parametrize("seed", range(3))
def test_noise_predicts_nothing(seed: int) -> None:
    values = fractions(noise(seed=7))
    result = fit_probe(EF, labels(values), "random", noise(60, seed=seed))
    assert result.test["r2"] < 0.1


def test_classes_are_recovered() -> None:
    features = noise()
    views = np.array(["A4C", "PLAX", "PSAX"])[features[:, :3].argmax(axis=1)]
    result = fit_probe(VIEW, labels(views), "pretrained", features)
    assert result.test["balanced_accuracy"] > 0.8
    assert result.test["auroc"] > 0.95
    assert result.classes.tolist() == ["A4C", "PLAX", "PSAX"]
    assert (result.truth == result.predicted).mean() == pytest.approx(result.test["accuracy"])
    chance = fit_probe(VIEW, labels(views), "random", noise(seed=3))
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
    result = fit_probe(EF, labels(values), "a", features)
    assert result.regularisation == pytest.approx(on_val)
    assert [result.val["mae"], result.test["mae"]] == pytest.approx(errors[on_val])
    assert result.test["r2"] < -1


@pytest.mark.parametrize("task", [EF, VIEW], ids=lambda task: task.kind)
def test_the_test_split_touches_nothing_but_the_test_scores(task: Task) -> None:
    features = noise()
    values = fractions(features)
    truth = values if task is EF else np.where(values > 55, "high", "low")
    before = fit_probe(task, labels(truth), "a", features)
    wild = features.copy()
    wild[180:] = 1e3 * noise(seed=5)[180:]
    shuffled = truth.copy()
    shuffled[180:] = shuffled[:179:-1]
    after = fit_probe(task, labels(shuffled), "a", wild)
    assert (after.regularisation, after.val) == (before.regularisation, before.val)
    assert after.test != before.test


def test_rows_are_told_apart_by_split_not_by_place() -> None:
    features = noise()
    values = fractions(features)
    order = np.random.default_rng(1).permutation(240)
    plain = fit_probe(EF, labels(values), "a", features)
    mixed = fit_probe(EF, labels(values[order], SPLITS[order]), "a", features[order])
    assert mixed.test == pytest.approx(plain.test)
    np.testing.assert_array_equal(np.sort(mixed.truth), np.sort(plain.truth))


def test_the_baseline_of_a_number_is_the_training_mean() -> None:
    values = np.array([50.0, 60.0, 70.0, 61.0, 40.0, 62.0])
    splits = np.array(["train", "train", "train", "val", "test", "test"])
    result = fit_baseline(EF, labels(values, splits))
    assert result.predicted.tolist() == [60.0, 60.0]
    assert result.truth.tolist() == [40.0, 62.0]
    assert result.test["mae"] == pytest.approx(11.0)
    assert result.test["rmse"] == pytest.approx(np.sqrt(202))
    assert result.test["r2"] == pytest.approx(1 - 404 / 242)
    assert result.test["pearson"] == 0.0
    assert result.val["mae"] == pytest.approx(1.0)
    assert result.regularisation is None


def test_the_baseline_of_classes_is_their_frequency() -> None:
    values = np.array(["A4C", "A4C", "PLAX", "A4C", "PLAX", "PLAX", "A4C", "PLAX", "PLAX"])
    splits = np.array(["train"] * 3 + ["val"] * 2 + ["test"] * 4)
    result = fit_baseline(VIEW, labels(values, splits))
    assert result.predicted.tolist() == ["A4C"] * 4
    assert result.test["accuracy"] == pytest.approx(0.25)
    assert result.test["balanced_accuracy"] == pytest.approx(0.5)
    assert result.test["auroc"] == pytest.approx(0.5)
    assert result.val["accuracy"] == 0.5
    assert result.classes.tolist() == ["A4C", "PLAX"]
