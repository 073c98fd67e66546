"""Linear probes on frozen features: ridge for numbers, logistic regression for classes.

The regularisation is chosen on the validation split and the test split is read once. The feature
scaler and, for regression, the label's mean belong to the fitted probe, never to the data it is
applied to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from echojepa.probes.intervals import Interval, intervals, patient_draws
from echojepa.probes.metrics import (
    Floats,
    Scores,
    classification_metrics,
    classification_scores,
    regression_metrics,
    regression_scores,
)
from echojepa.probes.tasks import Labels, Task

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
    drawn: Scores
    """The test scores in every draw of test patients, [R]; the same draws for all features."""
    truth: NDArray[Any]
    """Test labels, [n]."""
    predicted: NDArray[Any]
    """Test predictions: raw units [n], or class names [n]."""
    patients: NDArray[np.str_]
    """Whom the test clips are of, [n]."""
    classes: NDArray[Any]

    @property
    def intervals(self) -> dict[str, Interval]:
        """95% intervals of the test scores over patients."""
        return intervals(self.drawn)


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
        score = _headline(task, _on(task, model, features, labels, parts["val"]).metrics())
        if best is None or score > best[0]:
            best = (score, strength, model)
    assert best is not None
    _, strength, model = best
    return _result(
        task,
        name,
        strength,
        _on(task, model, features, labels, parts["val"]),
        _on(task, model, features, labels, parts["test"]),
        labels.patients[parts["test"]],
    )


def fit_baseline(task: Task, labels: Labels) -> ProbeResult:
    """The probe that sees no pixels: the training mean, or the training classes' frequencies."""
    train = labels.values[labels.splits == "train"]
    classes = np.unique(train) if task.kind == "classification" else np.empty(0)

    def said(split: str) -> _Said:
        truth = labels.values[labels.splits == split]
        if task.kind == "regression":
            return _Said(truth, np.full(len(truth), train.mean()), classes)
        share = np.array([(train == c).mean() for c in classes])
        return _Said(truth, np.tile(share, (len(truth), 1)), classes)

    patients = labels.patients[labels.splits == "test"]
    return _result(task, "predict mean", None, said("val"), said("test"), patients)


class _Said(NamedTuple):
    """What a probe says of the clips of a split."""

    truth: NDArray[Any]
    output: Floats
    """Numbers [n], or probabilities [n, C]."""
    classes: NDArray[Any]

    def scores(self, weights: Floats) -> Scores:
        """For every row of weights, [R, n]."""
        if len(self.classes):
            return classification_scores(self.truth, self.output, self.classes, weights)
        return regression_scores(self.truth, self.output, weights)

    def metrics(self) -> dict[str, float]:
        """With every clip counting once."""
        if len(self.classes):
            return classification_metrics(self.truth, self.output, self.classes)
        return regression_metrics(self.truth, self.output)


def _result(
    task: Task,
    name: str,
    strength: float | None,
    val: _Said,
    test: _Said,
    patients: NDArray[np.str_],
) -> ProbeResult:
    classes = test.classes
    predicted = classes[test.output.argmax(axis=1)] if len(classes) else test.output
    return ProbeResult(
        task=task,
        features=name,
        regularisation=strength,
        val=val.metrics(),
        test=test.metrics(),
        drawn=test.scores(patient_draws(patients)),
        truth=test.truth,
        predicted=predicted,
        patients=patients,
        classes=classes,
    )


def _model(task: Task, strength: float) -> Pipeline:
    if task.kind == "regression":
        return make_pipeline(StandardScaler(), Ridge(alpha=strength))
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))


def _on(
    task: Task, model: Pipeline, features: Floats, labels: Labels, part: NDArray[np.bool_]
) -> _Said:
    truth, shown = labels.values[part], features[part]
    if task.kind == "regression":
        return _Said(truth, model.predict(shown), np.empty(0))
    return _Said(truth, model.predict_proba(shown), model.classes_)


def _headline(task: Task, scores: dict[str, float]) -> float:
    """What is maximised on validation."""
    return -scores["mae"] if task.kind == "regression" else scores["balanced_accuracy"]
