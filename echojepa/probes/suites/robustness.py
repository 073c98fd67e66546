"""What do acoustic corruptions cost? Probes that learnt from clean videos, judged on worse ones.

*Skill* is what a probe adds to predicting the mean: 1 - error / error of the mean. The published
relative degradation, (error - error clean) / error clean, makes a bad probe look robust: one that
always says the mean loses nothing. Both are told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from echojepa.probes.examples import Material, examples_of
from echojepa.probes.fitting import BASELINE, Judged, Probe, ProbeResult, judge
from echojepa.probes.intervals import Interval, intervals
from echojepa.probes.metrics import HEADLINE, Floats, Scores
from echojepa.probes.store import Features
from echojepa.probes.tasks import require_labels, with_clips

CLEAN = "clean"
SKILL_LOST = "skill_lost"


class SeverityPoint(NamedTuple):
    """One probe on one task, on clips corrupted in one way to one degree.

    Its error is the headline score of a regression, and what that of a classification lacks to 1.
    """

    encoder: str
    """Whose features, and which probe if there are several."""
    task: str
    kind: str
    """Of corruption."""
    severity: float
    """1, 2, 3; 0 is the clean control, which is among the points of every kind."""
    test: dict[str, float]
    test_intervals: dict[str, Interval]
    """Over test patients."""
    skill_lost: float
    """Skill on clean clips minus that on these; skill is 1 - error / error of predict-mean."""
    skill_lost_interval: Interval
    """Over test patients, of the paired difference."""
    relative_degradation: float
    """(error on these - error on clean clips) / error on clean clips."""
    drawn: Scores
    """`test` and `SKILL_LOST` in every draw of test patients, [R]; the same draws for all."""

    def described(self) -> dict[str, Any]:
        """As plain JSON, without the draws."""
        return {name: value for name, value in self._asdict().items() if name != "drawn"}


def severity_points(
    judged: Sequence[Judged],
    baseline: Probe,
    rows: pa.Table,
    conditions: Mapping[str, Mapping[str, Features]],
) -> Iterator[SeverityPoint]:
    """Judge the probes of one task under every condition; those whose encoders failed are left out.

    Args:
        baseline: of the task; it predicts the mean.
        rows: of the test split, usable by the task.
        conditions: features by encoder, by condition: `CLEAN` is the control, the others are
            named "KIND SEVERITY".

    Raises:
        ManifestError: no clip of the task can be read under every condition.
    """
    task = judged[0].labels.task
    every = [features for found in conditions.values() for features in found.values()]
    readable = set.intersection(*(features.readable() for features in every))
    require_labels(with_clips(rows, readable), task, ("test",))
    examples = examples_of(rows, task, readable)
    encoders = set.intersection(*(set(found) for found in conditions.values()))
    any_material = Material(examples, next(iter(conditions[CLEAN].values())))
    known = judge(BASELINE, baseline, any_material, examples.labels)
    for one in (one for one in judged if one.encoder in encoders):
        results = {
            name: judge(
                one.name, one.probe, Material(examples, found[one.encoder]), examples.labels
            )
            for name, found in conditions.items()
        }
        control = results.pop(CLEAN)
        kinds = dict.fromkeys(name.rpartition(" ")[0] for name in results)
        for kind in kinds:
            yield _point(kind, 0, control, control, known)
        for name, result in results.items():
            kind, _, severity = name.rpartition(" ")
            yield _point(kind, int(severity), result, control, known)


def _point(
    kind: str, severity: int, result: ProbeResult, control: ProbeResult, baseline: ProbeResult
) -> SeverityPoint:
    score = HEADLINE[result.task.kind]
    before, after, chance = (
        _error(r.task.kind, np.array(r.test[score])) for r in (control, result, baseline)
    )
    drawn = [_error(r.task.kind, r.drawn[score]) for r in (control, result, baseline)]
    lost = {SKILL_LOST: (drawn[1] - drawn[0]) / drawn[2]}
    return SeverityPoint(
        encoder=result.features,
        task=result.task.name,
        kind=kind,
        severity=severity,
        test=result.test,
        test_intervals=result.intervals,
        skill_lost=float((after - before) / chance),
        skill_lost_interval=intervals(lost)[SKILL_LOST],
        relative_degradation=_growth(float(before), float(after)),
        drawn={**result.drawn, **lost},
    )


def _error(kind: str, score: Floats) -> Floats:
    return score if kind == "regression" else 1 - score


def _growth(before: float, after: float) -> float:
    if before == 0:
        return 0.0 if after == 0 else float("inf")
    return (after - before) / before
