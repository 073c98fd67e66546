"""Metrics against computations by hand and against scikit-learn's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import linregress, pearsonr, spearmanr
from sklearn import metrics

from echojepa.probes.metrics import (
    best_threshold,
    classification_metrics,
    classification_scores,
    confusion,
    regression_metrics,
    regression_scores,
)

VIEWS = np.array(["A2C", "A4C", "PLAX"])


def probabilities(n: int, seed: int = 0) -> NDArray[np.float64]:
    """Random rows that sum to 1, [n, 3]."""
    return np.random.default_rng(seed).dirichlet(np.ones(3), n)


def test_regression_by_hand() -> None:
    found = regression_metrics(np.array([40.0, 50.0, 60.0]), np.array([42.0, 50.0, 54.0]))
    assert found["mae"] == pytest.approx(8 / 3)
    assert found["rmse"] == pytest.approx(math.sqrt(40 / 3))
    assert found["r2"] == pytest.approx(1 - 40 / 200)
    assert found["pearson"] == pytest.approx(120 / math.sqrt(200 * (74.0 + 2 / 3)))


def of_sklearn(truth: NDArray[np.float64], predicted: NDArray[np.float64]) -> dict[str, float]:
    """The same scores by other people's code."""
    error = predicted - truth
    limits = error.mean() + 1.96 * error.std() * np.array([-1, 1])
    return {
        "mae": metrics.mean_absolute_error(truth, predicted),
        "rmse": metrics.root_mean_squared_error(truth, predicted),
        "r2": metrics.r2_score(truth, predicted),
        "pearson": pearsonr(truth, predicted).statistic,
        "spearman": spearmanr(truth, predicted).statistic,
        "slope": linregress(truth, predicted).slope,
        "spread": predicted.std() / truth.std(),
        "bias": error.mean(),
        "agreement_low": limits[0],
        "agreement_high": limits[1],
        "auroc_below_50": metrics.roc_auc_score(truth < 50, -predicted),
    }


def numbers(n: int = 60) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Truth, with ties, and what a probe that hugs the mean says of it."""
    random = np.random.default_rng(0)
    truth = random.normal(55, 12, n).round()
    return truth, (0.6 * truth + random.normal(20, 5, n)).round()


def test_regression_against_sklearn() -> None:
    found = regression_metrics(*numbers(), cutoffs=(50.0,))
    assert found == pytest.approx(of_sklearn(*numbers()))
    assert found["slope"] < 0.8


def test_a_weight_counts_a_prediction_so_often() -> None:
    """As every draw of a bootstrap does: equal to other people's code on repeated rows."""
    truth, predicted = numbers()
    weights = np.random.default_rng(3).integers(0, 4, (5, len(truth))).astype(float)
    found = regression_scores(truth, predicted, weights, cutoffs=(50.0,))
    for row, times in enumerate(weights.astype(int)):
        expected = of_sklearn(np.repeat(truth, times), np.repeat(predicted, times))
        assert {name: values[row] for name, values in found.items()} == pytest.approx(expected)


def test_a_cutoff_that_nobody_is_below_has_no_area() -> None:
    found = regression_metrics(*numbers(), cutoffs=(0.0, 200.0))
    assert math.isnan(found["auroc_below_0"]) and math.isnan(found["auroc_below_200"])


def test_regression_ends_of_the_scale() -> None:
    truth = np.array([10.0, 20.0, 60.0])
    ideal = dict.fromkeys(("r2", "pearson", "spearman", "slope", "spread"), 1.0)
    nothing = ("mae", "rmse", "bias", "agreement_low", "agreement_high")
    assert regression_metrics(truth, truth) == pytest.approx({**ideal, **dict.fromkeys(nothing, 0)})
    constant = regression_metrics(truth, np.full(3, truth.mean()))
    assert constant["r2"] == pytest.approx(0.0)
    assert [constant[n] for n in ("pearson", "spearman", "slope", "spread")] == [0.0] * 4
    assert regression_metrics(truth, truth[::-1])["r2"] < 0


def test_classification_by_hand() -> None:
    truth = VIEWS[[0, 0, 0, 1]]
    given = np.array([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1]])
    found = classification_metrics(truth, given, VIEWS)
    assert found["accuracy"] == pytest.approx(3 / 4)
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["auroc"] == pytest.approx(1.0)  # PLAX never occurs and does not count


def classes_of_sklearn(truth: NDArray[np.str_], given: NDArray[np.float64]) -> dict[str, float]:
    """The same scores by other people's code."""
    said = VIEWS[given.argmax(axis=1)]
    onehot = (truth[:, None] == VIEWS).astype(float)
    confidence, correct = given.max(axis=1), said == truth
    bins = np.digitize(confidence, np.linspace(0, 1, 16)[1:-1], right=True)
    gaps = [abs((correct - confidence)[bins == b].sum()) for b in range(15)]
    return {
        "accuracy": metrics.accuracy_score(truth, said),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, said),
        "auroc": metrics.roc_auc_score(truth, given, multi_class="ovr", labels=VIEWS),
        "auprc": metrics.average_precision_score(onehot, given, average="macro"),
        "macro_f1": metrics.f1_score(truth, said, average="macro"),
        "kappa": metrics.cohen_kappa_score(truth, said),
        "brier": ((given - onehot) ** 2).sum(axis=1).mean(),
        "ece": sum(gaps) / len(truth),
    }


def views(n: int = 80) -> tuple[NDArray[np.str_], NDArray[np.float64]]:
    """True views, some rare, and probabilities with ties."""
    truth = VIEWS[np.random.default_rng(1).choice(3, n, p=[0.6, 0.3, 0.1])]
    return truth, (probabilities(n) * 20).round() / 20


def test_classification_against_sklearn() -> None:
    truth = views()[0]
    given = probabilities(80)
    assert classification_metrics(truth, given, VIEWS) == pytest.approx(
        classes_of_sklearn(truth, given)
    )


@pytest.mark.filterwarnings("ignore")
def test_a_weight_counts_a_class_so_often() -> None:
    truth, given = views()
    given = given / given.sum(axis=1, keepdims=True)
    weights = np.random.default_rng(3).integers(0, 4, (5, len(truth))).astype(float)
    found = classification_scores(truth, given, VIEWS, weights)
    for row, times in enumerate(weights.astype(int)):
        expected = classes_of_sklearn(np.repeat(truth, times), np.repeat(given, times, axis=0))
        assert {name: values[row] for name, values in found.items()} == pytest.approx(expected)


def test_a_class_that_the_probe_does_not_know_is_wrong_and_counted() -> None:
    truth = np.array(["A2C", "A4C", "SC4C", "SC4C"])
    given = np.array([[0.9, 0.1], [0.2, 0.8], [1.0, 0.0], [0.5, 0.5]])
    found = classification_metrics(truth, given, VIEWS[:2])
    assert found["accuracy"] == 0.5
    assert found["balanced_accuracy"] == pytest.approx(2 / 3)
    assert found["brier"] == pytest.approx((2 * 0.01 + 2 * 0.04 + 2.0 + 1.5) / 4)
    assert found["macro_f1"] == pytest.approx((0.5 + 1.0 + 0.0) / 3)


def test_two_classes_have_one_area() -> None:
    truth = VIEWS[[0, 1, 1, 0, 1]]
    given = np.array([0.1, 0.7, 0.4, 0.5, 0.9])
    both = np.stack([1 - given, given], axis=1)
    found = classification_metrics(truth, both, VIEWS[:2])
    assert found["auroc"] == pytest.approx(metrics.roc_auc_score(truth == "A4C", given))
    assert found["auroc"] == pytest.approx(5 / 6)


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
def test_one_class_alone_has_no_area() -> None:
    found = classification_metrics(VIEWS[[1, 1, 1]], probabilities(3), VIEWS)
    assert math.isnan(found["auroc"])


def test_columns_follow_the_classes_given() -> None:
    truth, given = VIEWS[[0, 1, 2, 2, 1, 0]], probabilities(6)
    order = [2, 0, 1]
    one = classification_metrics(truth, given, VIEWS)
    assert classification_metrics(truth, given[:, order], VIEWS[order]) == pytest.approx(one)


def test_confusion_counts_truth_by_rows() -> None:
    truth, predicted = VIEWS[[0, 0, 1, 1, 1]], VIEWS[[0, 1, 1, 1, 2]]
    assert confusion(truth, predicted, VIEWS).tolist() == [[1, 1, 0], [0, 2, 1], [0, 0, 0]]
    assert confusion(truth, predicted, VIEWS[[1, 0]]).tolist() == [[2, 0], [1, 1]]


def test_the_best_threshold_is_that_of_a_search_over_all() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 3, 7, 40):
        truth = np.arange(n) % 2 == 1
        probability = np.round(rng.beta(2, 3, n) * 0.7 + 0.3 * truth * rng.random(n), 2)
        found = best_threshold(truth, probability)
        scores = [
            metrics.balanced_accuracy_score(truth, probability >= t)
            for t in np.linspace(0, 1, 2001)
        ]
        ours = metrics.balanced_accuracy_score(truth, probability >= found)
        assert ours == pytest.approx(max(scores))
    assert best_threshold(np.array([False, True]), np.array([0.25, 0.5])) == 0.375
    assert best_threshold(np.array([True, False, True]), np.array([0.1, 0.5, 0.9])) == 0.7
