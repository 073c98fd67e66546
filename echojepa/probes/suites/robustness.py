"""What do acoustic corruptions cost? Probes that learnt from clean videos, judged on worse ones.

*Skill* is what a probe adds to predicting the mean: 1 - MAE / MAE of the mean, or the balanced
accuracy between chance and 1. The published relative degradation, (MAE - MAE clean) / MAE clean,
makes a bad probe look robust: one that always says the mean loses nothing. Both are told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from echojepa.probes.examples import Material, examples_of
from echojepa.probes.fitting import BASELINE, Judged, Probe, ProbeResult, judge
from echojepa.probes.intervals import Interval, intervals
from echojepa.probes.metrics import HEADLINE, Floats
from echojepa.probes.store import Features

CLEAN = "clean"


class SeverityPoint(NamedTuple):
    """One probe under one corruption."""

    encoder: str
    """Whose features, and which probe if there are several."""
    task: str
    kind: str
    """Of the corruption; `CLEAN` of the control."""
    severity: int
    """1, 2, 3; 0 of the control."""
    test: dict[str, float]
    test_intervals: dict[str, Interval]
    """Over test patients."""
    skill_lost: float
    """Skill of the control minus skill under the corruption."""
    skill_lost_interval: Interval
    relative_degradation: float
    """Of the headline score: how much worse it is, as a share of the control's."""


def severity_points(
    judged: Sequence[Judged],
    baseline: Probe,
    rows: pa.Table,
    conditions: Mapping[str, Mapping[str, Features]],
) -> Iterator[SeverityPoint]:
    """Judge the probes of one task under every condition.

    Args:
        baseline: of the task; it predicts the mean.
        rows: of the test split, usable by the task.
        conditions: features by encoder, by condition; the first condition is the control. The
            others are named "KIND SEVERITY".
    """
    task = judged[0].labels.task
    every = [features for found in conditions.values() for features in found.values()]
    readable = set.intersection(*(features.readable() for features in every))
    examples = examples_of(rows, task, readable)
    for one in judged:
        first = Material(examples, next(iter(conditions.values()))[one.encoder])
        known = judge(BASELINE, baseline, first, examples.labels)
        results = {
            name: judge(
                one.name, one.probe, Material(examples, found[one.encoder]), examples.labels
            )
            for name, found in conditions.items()
        }
        control = next(iter(results.values()))
        for i, (name, result) in enumerate(results.items()):
            kind, _, severity = name.rpartition(" ") if i else (CLEAN, "", "0")
            yield _point(kind, int(severity), result, control, known)


def _point(
    kind: str, severity: int, result: ProbeResult, control: ProbeResult, baseline: ProbeResult
) -> SeverityPoint:
    metric = HEADLINE[result.task.kind]
    lost = _skill(control, baseline) - _skill(result, baseline)
    drawn = _drawn_skill(control, baseline) - _drawn_skill(result, baseline)
    worse = result.test[metric] - control.test[metric]
    if result.task.kind == "classification":
        worse = -worse
    return SeverityPoint(
        encoder=result.features,
        task=result.task.name,
        kind=kind,
        severity=severity,
        test=result.test,
        test_intervals=result.intervals,
        skill_lost=float(lost),
        skill_lost_interval=intervals({"lost": drawn})["lost"],
        relative_degradation=worse / control.test[metric],
    )


def _skill(result: ProbeResult, baseline: ProbeResult) -> float:
    metric = HEADLINE[result.task.kind]
    one, other = (np.array([r.test[metric]]) for r in (result, baseline))
    return float(_above(one, other, result.task.kind)[0])


def _drawn_skill(result: ProbeResult, baseline: ProbeResult) -> Floats:
    """Of every draw of patients; the same draws for both."""
    metric = HEADLINE[result.task.kind]
    return _above(result.drawn[metric], baseline.drawn[metric], result.task.kind)


def _above(score: Floats, of_baseline: Floats, kind: str) -> Floats:
    if kind == "regression":
        return np.asarray(1 - score / of_baseline)
    return np.asarray((score - of_baseline) / (1 - of_baseline))
