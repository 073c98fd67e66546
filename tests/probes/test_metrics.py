"""Metrics against computations by hand and against scikit-learn's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import pearsonr
from sklearn import metrics

from echojepa.probes.metrics import classification_metrics, confusion, regression_metrics

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


def test_regression_against_sklearn() -> None:
    random = np.random.default_rng(0)
    truth = random.normal(55, 12, 60)
    predicted = 0.6 * truth + random.normal(20, 5, 60)
    assert regression_metrics(truth, predicted) == pytest.approx(
        {
            "mae": metrics.mean_absolute_error(truth, predicted),
            "rmse": metrics.root_mean_squared_error(truth, predicted),
            "r2": metrics.r2_score(truth, predicted),
            "pearson": pearsonr(truth, predicted).statistic,
        }
    )


def test_regression_ends_of_the_scale() -> None:
    truth = np.array([10.0, 20.0, 60.0])
    assert regression_metrics(truth, truth) == pytest.approx(
        {"mae": 0.0, "rmse": 0.0, "r2": 1.0, "pearson": 1.0}
    )
    constant = regression_metrics(truth, np.full(3, truth.mean()))
    assert constant["r2"] == pytest.approx(0.0)
    assert constant["pearson"] == 0.0
    assert regression_metrics(truth, truth[::-1])["r2"] < 0


def test_classification_by_hand() -> None:
    truth = VIEWS[[0, 0, 0, 1]]
    given = np.array([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1]])
    found = classification_metrics(truth, given, VIEWS)
    assert found["accuracy"] == pytest.approx(3 / 4)
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["auroc"] == pytest.approx(1.0)  # PLAX never occurs and does not count


def test_classification_against_sklearn() -> None:
    truth = VIEWS[np.random.default_rng(1).choice(3, 80, p=[0.6, 0.3, 0.1])]
    given = probabilities(80)
    predicted = VIEWS[given.argmax(axis=1)]
    assert classification_metrics(truth, given, VIEWS) == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(truth, predicted),
            "balanced_accuracy": metrics.balanced_accuracy_score(truth, predicted),
            "auroc": metrics.roc_auc_score(truth, given, multi_class="ovr", labels=VIEWS),
        }
    )


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
