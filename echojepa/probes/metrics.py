"""Metrics of regression and classification probes, over an exact set of keyed predictions.

scikit-learn is imported where it is used: it would cost every training process two seconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def regression_metrics(truth: Floats, predicted: Floats) -> dict[str, float]:
    """Mean absolute error and root mean squared error in raw units, R2 and Pearson's r."""
    error = predicted - truth
    variance = float(((truth - truth.mean()) ** 2).sum())
    constant = predicted.std() < 1e-12 or truth.std() < 1e-12
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "r2": 1.0 - float((error**2).sum()) / max(variance, 1e-30),
        "pearson": 0.0 if constant else float(np.corrcoef(truth, predicted)[0, 1]),
    }


def classification_metrics(
    truth: NDArray[Any], probabilities: Floats, classes: NDArray[Any]
) -> dict[str, float]:
    """Accuracy, balanced accuracy and macro one-versus-rest AUROC.

    Args:
        truth: class names, [n].
        probabilities: [n, C], columns in the order of `classes`.
    """
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    predicted = classes[probabilities.argmax(axis=1)]
    present = [c for c in range(len(classes)) if 0 < (truth == classes[c]).sum() < len(truth)]
    areas = [roc_auc_score(truth == classes[c], probabilities[:, c]) for c in present]
    return {
        "accuracy": float((predicted == truth).mean()),
        "balanced_accuracy": float(balanced_accuracy_score(truth, predicted)),
        "auroc": float(np.mean(areas)) if areas else float("nan"),
    }


def confusion(truth: NDArray[Any], predicted: NDArray[Any], classes: NDArray[Any]) -> NDArray[Any]:
    """Counts [C, C], rows are the truth."""
    from sklearn.metrics import confusion_matrix

    return np.asarray(confusion_matrix(truth, predicted, labels=list(classes)))
