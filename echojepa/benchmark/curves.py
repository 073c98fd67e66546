"""Label curves and severity curves of arms: means over their seeds, in the form of one encoder's.

Every point of a mean has the draws of patients that its seeds' points have in common, so its
interval is over patients, of the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from echojepa.benchmark.board import Encoders
from echojepa.probes.fitting import BASELINE
from echojepa.probes.intervals import intervals
from echojepa.probes.metrics import Scores
from echojepa.probes.suites.label_efficiency import CurvePoint
from echojepa.probes.suites.robustness import SKILL_LOST, SeverityPoint

Point = TypeVar("Point", CurvePoint, SeverityPoint)


def arm_label_curves(points: Sequence[CurvePoint], encoders: Encoders) -> list[CurvePoint]:
    """One curve per arm."""
    groups: dict[tuple[str, str, float], list[CurvePoint]] = {}
    for point in points:
        arm = _arm(point.features, encoders)
        groups.setdefault((point.task, arm, point.share), []).append(point)
    found = []
    for (_, arm, _), some in groups.items():
        drawn = _mean_draws(some)
        found.append(
            some[0]._replace(
                features=arm,
                test=_mean_test(some),
                test_intervals=intervals(drawn),
                drawn=drawn,
            )
        )
    return found


def arm_severity(points: Sequence[SeverityPoint], encoders: Encoders) -> list[SeverityPoint]:
    """One curve per arm and corruption."""
    groups: dict[tuple[str, str, str, float], list[SeverityPoint]] = {}
    for point in points:
        arm = _arm(point.encoder, encoders)
        groups.setdefault((point.task, arm, point.kind, point.severity), []).append(point)
    found = []
    for (_, arm, _, _), some in groups.items():
        drawn = _mean_draws(some)
        known = intervals(drawn)
        found.append(
            some[0]._replace(
                encoder=arm,
                test=_mean_test(some),
                test_intervals={m: known[m] for m in some[0].test},
                skill_lost=float(np.mean([point.skill_lost for point in some])),
                skill_lost_interval=known[SKILL_LOST],
                relative_degradation=float(np.mean([p.relative_degradation for p in some])),
                drawn=drawn,
            )
        )
    return found


def _arm(name: str, encoders: Encoders) -> str:
    return BASELINE if name == BASELINE else encoders[name][0]


def _mean_test(points: Sequence[Point]) -> dict[str, float]:
    return {m: float(np.mean([point.test[m] for point in points])) for m in points[0].test}


def _mean_draws(points: Sequence[Point]) -> Scores:
    return {m: np.mean([p.drawn[m] for p in points], axis=0) for m in points[0].drawn}
