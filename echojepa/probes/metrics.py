"""Metrics of regression and classification probes, over an exact set of keyed predictions.

Every score is a function of weights as well, so that all draws of a bootstrap are scored at once: a
weight says how often a prediction counts.

Shapes: n predictions, C classes, R rows of weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Scores = Mapping[str, Floats]
"""By name, one value per row of weights, [R]."""

SHOWN = {
    "regression": ("mae", "r2", "pearson", "rmse", "spearman", "slope", "bias"),
    "classification": ("balanced_accuracy", "auroc", "auprc", "macro_f1", "kappa", "ece"),
}
"""The scores that people see first, the foremost three in a terminal; files hold all of them."""
HEADLINE = {"regression": "mae", "classification": "balanced_accuracy"}
"""The score that choices are made by. Rare classes weigh in it as much as common ones. (An area
would be as good where the commonest class is said always.)"""
_TINY = 1e-12
_LIMITS = 1.96
"""Standard deviations to the limits of agreement (Bland and Altman, Lancet 327:307, 1986)."""
_NUM_BINS = 15


def regression_metrics(
    truth: Floats, predicted: Floats, cutoffs: Sequence[float] = ()
) -> dict[str, float]:
    """See `regression_scores`, every prediction counting once."""
    return _single(regression_scores(truth, predicted, np.ones((1, len(truth))), cutoffs))


def classification_metrics(
    truth: NDArray[Any], probabilities: Floats, classes: NDArray[Any]
) -> dict[str, float]:
    """See `classification_scores`, every prediction counting once."""
    weights = np.ones((1, len(truth)))
    return _single(classification_scores(truth, probabilities, classes, weights))


def regression_scores(
    truth: Floats, predicted: Floats, weights: Floats, cutoffs: Sequence[float] = ()
) -> Scores:
    """How good numbers are, for every row of weights [R, n].

    Returns:
        mae, rmse: in raw units.
        r2, pearson, spearman: 1 at best; correlations of what does not vary are 0.
        slope: of the predictions over the truth, 1 at best; a probe that hugs the mean has 0.
        spread: deviation of the predictions over that of the truth.
        bias, agreement_low, agreement_high: mean error, and Bland and Altman's limits around it.
        auroc_below_X: of "the truth is below X", for every cutoff X; NaN if all or none is.
    """
    share = weights / weights.sum(axis=1, keepdims=True)
    error = predicted - truth
    bias, squared = share @ error, share @ error**2
    deviation = np.sqrt(np.maximum(squared - bias**2, 0.0))
    of_truth, of_predicted, covariance = _moments(truth[None], predicted[None], share)
    limits = _LIMITS * deviation
    scores = {
        "mae": share @ np.abs(error),
        "rmse": np.sqrt(squared),
        "r2": 1.0 - squared / np.maximum(of_truth, 1e-30),
        "pearson": _correlation(of_truth, of_predicted, covariance),
        "spearman": _correlation(
            *_moments(_ranks(truth, weights), _ranks(predicted, weights), share)
        ),
        "slope": np.where(of_truth > 0, covariance / np.where(of_truth > 0, of_truth, 1), 0.0),
        "spread": np.sqrt(of_predicted / np.where(of_truth > 0, of_truth, np.inf)),
        "bias": bias,
        "agreement_low": bias - limits,
        "agreement_high": bias + limits,
    }
    for cutoff in cutoffs:
        scores[f"auroc_below_{cutoff:g}"] = _auroc(truth < cutoff, -predicted, weights)
    return scores


def classification_scores(
    truth: NDArray[Any], probabilities: Floats, classes: NDArray[Any], weights: Floats
) -> Scores:
    """How good probabilities of classes are, for every row of weights [R, n].

    A true class that the probe does not know counts: its clips are wrong whatever is said.

    Args:
        truth: class names, [n].
        probabilities: [n, C], columns in the order of `classes`.

    Returns:
        accuracy, balanced_accuracy, kappa (Cohen 1960), macro_f1 over classes that occur or are
        said; auroc and auprc, means over classes against the rest; brier, the squared error of all
        probabilities of a prediction; ece, the expected calibration error in 15 bins (Naeini et al.
        2015).
    """
    said = classes[probabilities.argmax(axis=1)]
    correct = said == truth
    occurring = np.unique(truth)
    columns = {name: probabilities[:, i] for i, name in enumerate(classes)}
    some = [name for name in classes if 0 < (truth == name).sum() < len(truth)]
    given = np.array([columns[t][i] if t in columns else 0.0 for i, t in enumerate(truth)])
    squared = (probabilities**2).sum(axis=1) - 2 * given + 1
    return {
        "accuracy": _mean(correct, weights),
        "balanced_accuracy": _mean_over_classes(
            [_mean(correct, weights * (truth == name)) for name in occurring], len(weights)
        ),
        "auroc": _mean_over_classes(
            [_auroc(truth == name, columns[name], weights) for name in some], len(weights)
        ),
        "auprc": _mean_over_classes(
            [_average_precision(truth == name, columns[name], weights) for name in some],
            len(weights),
        ),
        "macro_f1": _mean_over_classes(
            [_f1(truth == c, said == c, weights) for c in np.union1d(truth, said)], len(weights)
        ),
        "kappa": _kappa(truth, said, weights),
        "brier": _mean(squared, weights),
        "ece": _calibration_error(probabilities.max(axis=1), correct, weights),
    }


def goodness(kind: Literal["regression", "classification"], headline: float) -> float:
    """What choices maximise: the headline score, turned so that more is better."""
    return -headline if kind == "regression" else headline


def confusion(truth: NDArray[Any], predicted: NDArray[Any], classes: NDArray[Any]) -> NDArray[Any]:
    """Counts [C, C], rows are the truth."""
    from sklearn.metrics import confusion_matrix  # two seconds, of which training needs nothing

    return np.asarray(confusion_matrix(truth, predicted, labels=list(classes)))


def best_threshold(truth: NDArray[np.bool_], probability: Floats) -> float:
    """The threshold of highest balanced accuracy, "yes" from there on; the most central of several.

    Args:
        truth: [n], of a split that nothing is judged on, with both answers in it.
        probability: of a "yes", [n].
    """
    values = np.unique(probability)
    steps = np.concatenate([values[:1] / 2, (values[1:] + values[:-1]) / 2])
    yes = probability >= steps[:, None]
    balanced = yes[:, truth].mean(axis=1) + (~yes[:, ~truth]).mean(axis=1)
    best = steps[balanced > balanced.max() - _TINY]
    return float(best[np.abs(best - 0.5).argmin()])


def _single(scores: Scores) -> dict[str, float]:
    return {name: float(values[0]) for name, values in scores.items()}


def _moments(x: Floats, y: Floats, share: Floats) -> tuple[Floats, Floats, Floats]:
    """Variances of x and y and their covariance, for every row of shares; x, y [1 or R, n]."""
    x_mean, y_mean = (share * x).sum(axis=1), (share * y).sum(axis=1)
    dx, dy = x - x_mean[:, None], y - y_mean[:, None]
    return (share * dx**2).sum(axis=1), (share * dy**2).sum(axis=1), (share * dx * dy).sum(axis=1)


def _correlation(of_x: Floats, of_y: Floats, covariance: Floats) -> Floats:
    """Pearson's; 0 where one of the two does not vary."""
    product = np.sqrt(of_x * of_y)
    constant = product < _TINY * (1.0 + of_x + of_y)
    return np.asarray(np.where(constant, 0.0, covariance / np.where(constant, 1.0, product)))


def _ranks(values: Floats, weights: Floats) -> Floats:
    """Mid-ranks of values that count as often as their weights say, [R, n]."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=-np.inf))
    group = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(values)))
    counts = np.add.reduceat(weights[:, order], starts, axis=1)
    middle = np.cumsum(counts, axis=1) - counts + (counts + 1) / 2
    ranks = np.empty_like(weights)
    ranks[:, order] = middle[:, group]
    return ranks


def _f1(true: NDArray[np.bool_], said: NDArray[np.bool_], weights: Floats) -> Floats:
    """Harmonic mean of precision and recall, [R]; NaN where the class neither is nor is said."""
    hits, counts = weights @ (true & said), weights @ true + weights @ said
    return np.asarray(np.where(counts > 0, 2 * hits / np.where(counts > 0, counts, 1), np.nan))


def _kappa(truth: NDArray[Any], said: NDArray[Any], weights: Floats) -> Floats:
    """Agreement beyond chance, [R]; NaN where chance alone agrees always."""
    share = weights / weights.sum(axis=1, keepdims=True)
    chance = sum((share @ (truth == c)) * (share @ (said == c)) for c in np.union1d(truth, said))
    room = 1 - np.asarray(chance)
    beyond = share @ (truth == said) - chance
    return np.asarray(np.where(room > _TINY, beyond / np.where(room > _TINY, room, 1), np.nan))


def _calibration_error(confidence: Floats, correct: NDArray[np.bool_], weights: Floats) -> Floats:
    """Mean distance of confidence and accuracy over bins of equal width, [R]."""
    share = weights / weights.sum(axis=1, keepdims=True)
    bins = np.clip(np.ceil(confidence * _NUM_BINS).astype(int) - 1, 0, _NUM_BINS - 1)
    gaps = np.zeros((len(confidence), _NUM_BINS))
    gaps[np.arange(len(bins)), bins] = correct - confidence
    return np.asarray(np.abs(share @ gaps).sum(axis=1))


def _average_precision(positive: NDArray[np.bool_], score: Floats, weights: Floats) -> Floats:
    """Precision averaged over the recalled, best scores first, [R]; NaN without a positive."""
    order = np.argsort(-score, kind="stable")
    starts = np.flatnonzero(np.diff(-score[order], prepend=-np.inf))
    hits = np.add.reduceat(weights[:, order] * positive[order], starts, axis=1)
    shown = np.cumsum(np.add.reduceat(weights[:, order], starts, axis=1), axis=1)
    precision = np.cumsum(hits, axis=1) / np.where(shown > 0, shown, 1)
    total = hits.sum(axis=1)
    found = (precision * hits).sum(axis=1)
    return np.asarray(np.where(total > 0, found / np.where(total > 0, total, 1), np.nan))


def _mean(values: NDArray[Any], weights: Floats) -> Floats:
    """Weighted mean, [R]; NaN where no weight is left."""
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
