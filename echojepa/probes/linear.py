"""Linear probes on frozen features: ridge for numbers, logistic regression for classes.

The regularisation is chosen on the validation split and the test split is read once. The feature
scaler and, for regression, the label's mean belong to the fitted probe, never to the data it is
applied to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from echojepa.probes.metrics import classification_metrics, regression_metrics
from echojepa.probes.tasks import Labels, Task

Floats = NDArray[np.float64]

_RIDGE_ALPHAS = tuple(10.0**e for e in range(-2, 6))
_LOGISTIC_C = tuple(10.0**e for e in range(-4, 3))


@dataclass(frozen=True)
class ProbeResult:
    """A fitted probe, judged on the test split."""

    task: Task
    features: str
    """Name of the features, or of the baseline."""
    regularisation: float | None
    val: dict[str, float]
    test: dict[str, float]
    truth: NDArray[Any]
    """Test labels, [n]."""
    predicted: NDArray[Any]
    """Test predictions: raw units [n], or class names [n]."""
    classes: NDArray[Any]


def fit_probe(task: Task, labels: Labels, name: str, features: Floats) -> ProbeResult:
    """Fit on train, choose on val, judge on test.

    Args:
        features: one row per clip of `labels`, in its order, [n, D].
    """
    parts = {s: labels.splits == s for s in ("train", "val", "test")}
    candidates = _RIDGE_ALPHAS if task.kind == "regression" else _LOGISTIC_C
    best: tuple[float, float, Pipeline] | None = None
    for strength in candidates:
        model = _model(task, strength)
        model.fit(features[parts["train"]], labels.values[parts["train"]])
        score = _headline(task, _judge(task, model, features, labels, parts["val"]))
        if best is None or score > best[0]:
            best = (score, strength, model)
    assert best is not None
    _, strength, model = best
    return ProbeResult(
        task=task,
        features=name,
        regularisation=strength,
        val=_judge(task, model, features, labels, parts["val"]),
        test=_judge(task, model, features, labels, parts["test"]),
        truth=labels.values[parts["test"]],
        predicted=model.predict(features[parts["test"]]),
        classes=model.classes_ if task.kind == "classification" else np.empty(0),
    )


def fit_baseline(task: Task, labels: Labels) -> ProbeResult:
    """The probe that sees no pixels: the training mean, or the training classes' frequencies."""
    train = labels.values[labels.splits == "train"]
    scores: dict[str, dict[str, float]] = {}
    classes = np.unique(train) if task.kind == "classification" else np.empty(0)
    for split in ("val", "test"):
        truth = labels.values[labels.splits == split]
        if task.kind == "regression":
            predicted = np.full(len(truth), train.mean())
            scores[split] = regression_metrics(truth, predicted)
        else:
            share = np.array([(train == c).mean() for c in classes])
            scores[split] = classification_metrics(truth, np.tile(share, (len(truth), 1)), classes)
            predicted = np.full(len(truth), classes[share.argmax()])
    return ProbeResult(
        task, "predict mean", None, scores["val"], scores["test"], truth, predicted, classes
    )


def _model(task: Task, strength: float) -> Pipeline:
    if task.kind == "regression":
        return make_pipeline(StandardScaler(), Ridge(alpha=strength))
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))


def _judge(
    task: Task, model: Pipeline, features: Floats, labels: Labels, part: NDArray[np.bool_]
) -> dict[str, float]:
    if task.kind == "regression":
        return regression_metrics(labels.values[part], model.predict(features[part]))
    probabilities = model.predict_proba(features[part])
    return classification_metrics(labels.values[part], probabilities, model.classes_)


def _headline(task: Task, scores: dict[str, float]) -> float:
    """What is maximised on validation."""
    return -scores["mae"] if task.kind == "regression" else scores["balanced_accuracy"]
