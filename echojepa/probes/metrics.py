"""Metrics of regression and classification probes, over an exact set of keyed predictions.

Every score is a function of weights as well, so that all draws of a bootstrap are scored at once.

Shapes: n clips, C classes, R rows of weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Scores = Mapping[str, Floats]
"""By name, one value per row of weights, [R]."""

_TINY = 1e-12


def regression_metrics(truth: Floats, predicted: Floats) -> dict[str, float]:
    """Mean absolute error and root mean squared error in raw units, R2 and Pearson's r."""
    return _single(regression_scores(truth, predicted, np.ones((1, len(truth)))))


def classification_metrics(
    truth: NDArray[Any], probabilities: Floats, classes: NDArray[Any]
) -> dict[str, float]:
    """Accuracy, balanced accuracy and macro one-versus-rest AUROC.

    Args:
        truth: class names, [n].
        probabilities: [n, C], columns in the order of `classes`.
    """
    weights = np.ones((1, len(truth)))
    return _single(classification_scores(truth, probabilities, classes, weights))


def regression_scores(truth: Floats, predicted: Floats, weights: Floats) -> Scores:
    """`regression_metrics` for every row of weights [R, n]."""
    share = weights / weights.sum(axis=1, keepdims=True)
    error = predicted - truth
    squared = share @ error**2
    truth_mean, predicted_mean = share @ truth, share @ predicted
    truth_variance = np.maximum(share @ truth**2 - truth_mean**2, 0.0)
    predicted_variance = np.maximum(share @ predicted**2 - predicted_mean**2, 0.0)
    covariance = share @ (truth * predicted) - truth_mean * predicted_mean
    # Variances as differences of squares carry rounding errors of the size of the squares.
    scale = _TINY * (1.0 + share @ truth**2 + share @ predicted**2)
    constant = (truth_variance < scale) | (predicted_variance < scale)
    spread = np.sqrt(truth_variance * predicted_variance)
    return {
        "mae": share @ np.abs(error),
        "rmse": np.sqrt(squared),
        "r2": 1.0 - squared / np.maximum(truth_variance, 1e-30),
        "pearson": np.where(constant, 0.0, covariance / np.where(constant, 1.0, spread)),
    }


def classification_scores(
    truth: NDArray[Any], probabilities: Floats, classes: NDArray[Any], weights: Floats
) -> Scores:
    """`classification_metrics` for every row of weights [R, n]."""
    correct = classes[probabilities.argmax(axis=1)] == truth
    recalls = [_mean(correct, weights * (truth == name)) for name in np.unique(truth)]
    areas = [
        _auroc(truth == name, probabilities[:, column], weights)
        for column, name in enumerate(classes)
        if 0 < (truth == name).sum() < len(truth)
    ]
    return {
        "accuracy": _mean(correct, weights),
        "balanced_accuracy": _mean_over_classes(recalls, len(weights)),
        "auroc": _mean_over_classes(areas, len(weights)),
    }


def confusion(truth: NDArray[Any], predicted: NDArray[Any], classes: NDArray[Any]) -> NDArray[Any]:
    """Counts [C, C], rows are the truth."""
    from sklearn.metrics import confusion_matrix  # two seconds, of which training needs nothing

    return np.asarray(confusion_matrix(truth, predicted, labels=list(classes)))


def _single(scores: Scores) -> dict[str, float]:
    return {name: float(values[0]) for name, values in scores.items()}


def _mean(values: NDArray[np.bool_], weights: Floats) -> Floats:
    """Weighted share of true values, [R]; NaN where no weight is left."""
    total = weights.sum(axis=1)
    return np.asarray(np.where(total > 0, weights @ values / np.where(total > 0, total, 1), np.nan))


def _mean_over_classes(values: list[Floats], num_rows: int) -> Floats:
    """Mean over those classes that a row of weights has, [R]; NaN where it has none."""
    if not values:
        return np.full(num_rows, np.nan)
    stacked = np.stack(values)
    there = ~np.isnan(stacked)
    count = there.sum(axis=0)
    total = np.where(there, stacked, 0.0).sum(axis=0)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def _auroc(positive: NDArray[np.bool_], score: Floats, weights: Floats) -> Floats:
    """Chance that a positive clip scores above a negative one, ties counting half, [R]."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf))  # groups of equal scores
    positives = np.add.reduceat(weights[:, order] * positive[order], starts, axis=1)
    negatives = np.add.reduceat(weights[:, order] * ~positive[order], starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    won = (positives * (below + negatives / 2)).sum(axis=1)
    return np.asarray(np.where(pairs > 0, won / np.where(pairs > 0, pairs, 1), np.nan))
