"""A probe fitted on train, chosen on validation, judged on test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from echojepa.probes.examples import Material
from echojepa.probes.grid.config import GridConfig
from echojepa.probes.grid.fit import fit_grid
from echojepa.probes.intervals import Interval, intervals, patient_draws
from echojepa.probes.linear import LinearConfig, LinearProbe, fit_linear
from echojepa.probes.metrics import HEADLINE, Floats, Scores, goodness
from echojepa.probes.predictions import Predictions, predictions_of
from echojepa.probes.tasks import Labels, Task

AnyProbe = Annotated[LinearConfig | GridConfig, Field(discriminator="kind")]
BASELINE = "predict mean"


@dataclass(frozen=True)
class ProbeResult:
    """A fitted probe, judged on the test split."""

    task: Task
    features: str
    """Whose features, or the name of the baseline."""
    chosen: dict[str, float] | None
    """What was chosen on validation; None of the baseline."""
    on_val: Predictions | None
    """Of the validation split, if there is one."""
    test: dict[str, float]
    drawn: Scores
    """The test scores in every draw of test patients, [R]; the same draws for all features."""
    predictions: Predictions
    """Of the test split."""

    @cached_property
    def val(self) -> dict[str, float]:
        """The validation scores; none if there is no such split."""
        return self.on_val.metrics() if self.on_val is not None else {}

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


class Probe(Protocol):
    """What predicts."""

    @property
    def classes(self) -> NDArray[Any]:
        """Those that it knows, [C]; none of a number."""

    @property
    def chosen(self) -> dict[str, float] | None:
        """What was chosen on validation, if anything was."""

    def predict(self, material: Material, index: NDArray[np.int64]) -> Floats:
        """Numbers in raw units [n], or probabilities [n, C], of some examples."""


@dataclass(frozen=True)
class Baseline:
    """The probe that sees no pixels: the training mean, or the training classes' frequencies."""

    output: Floats
    """[1] or [C]."""
    classes: NDArray[Any]
    """[C]; none of a number."""
    chosen: None = None

    def predict(self, material: Material, index: NDArray[np.int64]) -> Floats:
        """See `Probe`."""
        del material
        return (
            np.tile(self.output, (len(index), 1))
            if len(self.classes)
            else self.output.repeat(len(index))
        )


@dataclass(frozen=True)
class Judged:
    """A fitted probe and what it is worth."""

    name: str
    """Of its results: whose features, and which probe if there are several."""
    encoder: str
    probe: Probe
    config: AnyProbe
    labels: Labels
    """It was fitted on their training split."""
    result: ProbeResult


def fit_probe(config: AnyProbe, material: Material, labels: Labels) -> Probe:
    """Fit on train, choose on val by `HEADLINE`; test is not looked at.

    Args:
        labels: of the examples of `material`; the split of some may have been changed.
    """
    if isinstance(config, GridConfig):
        return fit_grid(config, material, labels)
    train, val = (labels.splits == split for split in ("train", "val"))
    weights = labels.weights()[train]

    def score(probe: LinearProbe) -> float:
        said = predictions_of(labels, val, probe(material.vectors[val]), probe.classes)
        return goodness(labels.task.kind, said.metrics()[HEADLINE[labels.task.kind]])

    return fit_linear(material.vectors[train], labels.values[train], weights, score)


def fit_baseline(labels: Labels) -> Baseline:
    """What training says without a look at pixels."""
    is_train, weights = labels.splits == "train", labels.weights()
    train, share = labels.values[is_train], weights[is_train] / weights[is_train].sum()
    if labels.task.kind == "regression":
        return Baseline(np.array([share @ train]), np.empty(0))
    classes = np.unique(train)
    return Baseline(np.array([share @ (train == c) for c in classes]), classes)


def judge(
    name: str,
    probe: Probe,
    material: Material,
    labels: Labels,
    adjust: Callable[[Floats], Floats] = np.asarray,
) -> ProbeResult:
    """What a probe is worth on validation, if there is one, and on test.

    Args:
        labels: of the examples of `material`.
        adjust: what is done to its outputs.
    """

    def said(split: str) -> Predictions:
        part = labels.splits == split
        output = adjust(probe.predict(material, np.flatnonzero(part)))
        return predictions_of(labels, part, output, probe.classes)

    test = said("test")
    return ProbeResult(
        task=labels.task,
        features=name,
        chosen=probe.chosen,
        on_val=said("val") if (labels.splits == "val").any() else None,
        test=test.metrics(),
        drawn=test.scores(patient_draws(test.patients)),
        predictions=test,
    )
