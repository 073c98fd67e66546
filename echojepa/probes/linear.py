"""Linear probes on frozen features: ridge for numbers, logistic regression for classes.

The regularisation is chosen on the validation split and the test split is read once. The feature
scaler and, for regression, the label's mean belong to the fitted probe, never to the data it is
applied to.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from echojepa.probes.intervals import Interval, intervals, patient_draws
from echojepa.probes.metrics import HEADLINE, Floats, Scores
from echojepa.probes.predictions import Predictions, predictions_of
from echojepa.probes.tasks import Labels, Task

BASELINE = "predict mean"
"""The name of the probe that sees no pixels."""
_RIDGE_ALPHAS = tuple(10.0**e for e in range(5, -3, -1))
_LOGISTIC_C = tuple(10.0**e for e in range(-4, 3))
"""Both from the simplest model on: of equally good ones the first is taken."""


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
    predictions: Predictions
    """Of the test split."""

    @property
    def intervals(self) -> dict[str, Interval]:
        """95% intervals of the test scores over patients."""
        return intervals(self.drawn)

    @cached_property
    def by_group(self) -> list[dict[str, Any]]:
        """The test scores of every group, with intervals over its own patients."""
        found = []
        for column, values in self.predictions.groups.items():
            for value in np.unique(values).tolist():
                part = self.predictions.only(values == value)
                drawn = part.scores(patient_draws(part.patients))
                scores = {"test": part.metrics(), "test_intervals": intervals(drawn)}
                found.append({"column": column, "value": value, **part.counts(), **scores})
        return found


def fit_probe(task: Task, labels: Labels, name: str, features: Floats) -> ProbeResult:
    """Fit on train, choose on val by `HEADLINE`, judge on test.

    Args:
        features: one row per clip of `labels`, in its order, [n, D].
    """
    train, val, test = (labels.splits == split for split in ("train", "val", "test"))
    weights = labels.weights()[train]
    best: tuple[float, float, Pipeline] | None = None
    for strength in _RIDGE_ALPHAS if task.kind == "regression" else _LOGISTIC_C:
        model = _model(task, strength)
        said = {f"{step}__sample_weight": weights for step, _ in model.steps}
        model.fit(features[train], labels.values[train], **said)
        score = _headline(task, _said(model, features, labels, val).metrics())
        if best is None or score > best[0]:
            best = (score, strength, model)
    assert best is not None
    _, strength, model = best
    on_val, on_test = (_said(model, features, labels, part) for part in (val, test))
    return _result(name, strength, on_val, on_test)


def fit_baseline(task: Task, labels: Labels) -> ProbeResult:
    """The probe that sees no pixels: the training mean, or the training classes' frequencies."""
    is_train, weights = labels.splits == "train", labels.weights()
    train, share = labels.values[is_train], weights[is_train] / weights[is_train].sum()
    classes = np.unique(train) if task.kind == "classification" else np.empty(0)

    def said(split: str) -> Predictions:
        part = labels.splits == split
        if task.kind == "regression":
            output = np.full(int(part.sum()), share @ train)
        else:
            output = np.tile([share @ (train == c) for c in classes], (int(part.sum()), 1))
        return predictions_of(labels, part, output, classes)

    return _result(BASELINE, None, said("val"), said("test"))


def _result(name: str, strength: float | None, val: Predictions, test: Predictions) -> ProbeResult:
    return ProbeResult(
        task=test.task,
        features=name,
        regularisation=strength,
        val=val.metrics(),
        test=test.metrics(),
        drawn=test.scores(patient_draws(test.patients)),
        predictions=test,
    )


def _model(task: Task, strength: float) -> Pipeline:
    if task.kind == "regression":
        return make_pipeline(StandardScaler(), Ridge(alpha=strength))
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))


def _said(
    model: Pipeline, features: Floats, labels: Labels, part: NDArray[np.bool_]
) -> Predictions:
    shown = features[part]
    if labels.task.kind == "regression":
        return predictions_of(labels, part, model.predict(shown), np.empty(0))
    return predictions_of(labels, part, model.predict_proba(shown), model.classes_)


def _headline(task: Task, scores: dict[str, float]) -> float:
    """What is maximised on validation."""
    score = scores[HEADLINE[task.kind]]
    return -score if task.kind == "regression" else score
