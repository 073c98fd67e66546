"""How many labels does it take? Probes fitted on the labels of some training patients only.

Patients are drawn, not clips, and so that every class, or every fifth of the range of a number,
keeps its share. Validation and test stay whole.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from echojepa.probes.fitting import ProbeResult
from echojepa.probes.intervals import Interval, intervals
from echojepa.probes.metrics import Scores
from echojepa.probes.tasks import Labels

NUM_DRAWS = 3
_NUM_BINS = 5
_UNUSED = "unused"


class CurvePoint(NamedTuple):
    """One share of the labels, averaged over draws of patients."""

    task: str
    features: str
    share: float
    """Of the training patients."""
    num_patients: int
    """So many of them."""
    test: dict[str, float]
    """Mean over the draws."""
    test_intervals: dict[str, Interval]
    """Over test patients, of that mean."""
    drawn: Scores
    """That mean in every draw of test patients, [R]; the same draws for all features."""

    def described(self) -> dict[str, Any]:
        """As plain JSON, without the draws."""
        return {name: value for name, value in self._asdict().items() if name != "drawn"}


def label_curve(
    labels: Labels, shares: Sequence[float], fit: Callable[[Labels], ProbeResult]
) -> list[CurvePoint]:
    """Fit and judge at every share.

    Args:
        fit: fits a probe on these labels and judges it.
    """
    points = []
    for share in sorted(shares):
        drawn = [with_few_labels(labels, share, draw) for draw in range(NUM_DRAWS)]
        results = [fit(few) for few in drawn]
        scores = {
            metric: np.mean([result.drawn[metric] for result in results], axis=0)
            for metric in results[0].drawn
        }
        points.append(
            CurvePoint(
                task=labels.task.name,
                features=results[0].features,
                share=share,
                num_patients=len(np.unique(drawn[0].patients[drawn[0].splits == "train"])),
                test={
                    metric: float(np.mean([result.test[metric] for result in results]))
                    for metric in results[0].test
                },
                test_intervals=intervals(scores),
                drawn=scores,
            )
        )
    return points


def with_few_labels(labels: Labels, share: float, draw: int) -> Labels:
    """The same labels, of which a share of the training patients is left; the others are unused.

    A smaller share is part of a larger one of the same draw. Every stratum keeps one patient at
    least.
    """
    train = labels.splits == "train"
    strata: dict[str, list[str]] = {}
    for patient, stratum in _strata(labels, train).items():
        strata.setdefault(stratum, []).append(patient)

    def key(patient: str) -> bytes:
        return hashlib.blake2b(f"{draw}/{patient}".encode(), digest_size=8).digest()

    kept = [
        patient
        for patients in strata.values()
        for patient in sorted(patients, key=key)[: math.ceil(share * len(patients) - 1e-9)]
    ]
    unused = train & ~np.isin(labels.patients, kept)
    return replace(labels, splits=np.where(unused, _UNUSED, labels.splits))


def _strata(labels: Labels, train: NDArray[np.bool_]) -> dict[str, str]:
    """The stratum of every training patient: its commonest class, or the fifth of its mean."""
    patients, values = labels.patients[train], labels.values[train]
    names, owner = np.unique(patients, return_inverse=True)
    if labels.task.kind == "classification":
        classes, which = np.unique(values, return_inverse=True)
        counts = np.zeros((len(names), len(classes)))
        np.add.at(counts, (owner, which), 1)
        return dict(zip(names.tolist(), classes[counts.argmax(axis=1)].tolist(), strict=True))
    means = np.bincount(owner, weights=values) / np.bincount(owner)
    fifth = np.floor(means.argsort().argsort() * _NUM_BINS / len(names)).astype(int)
    return dict(zip(names.tolist(), map(str, fifth.tolist()), strict=True))
