"""Does a probe hold on other people's patients?

Every fitted probe is judged on the test split of another manifest: strictly, as it is; and, for
numbers, re-calibrated by the mean and deviation of that manifest's training labels, which is what
some published "zero-shot" figures really are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from echojepa.errors import ManifestError
from echojepa.probes.examples import Material, examples_of
from echojepa.probes.fitting import Judged, ProbeResult, judge
from echojepa.probes.metrics import Floats
from echojepa.probes.results import described
from echojepa.probes.store import Features
from echojepa.probes.tasks import Labels


class Transfer(NamedTuple):
    """A probe on other patients."""

    target: str
    """Name of the other manifest."""
    calibration: Literal["strict", "recalibrated"]
    result: ProbeResult

    def described(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"target": self.target, "calibration": self.calibration, **described(self.result)}


def transferred(
    target: str,
    rows: pa.Table,
    judged: Sequence[Judged],
    features: Mapping[str, Features],
    groups: Sequence[str],
) -> list[Transfer]:
    """Judge the probes of one task on another manifest.

    Args:
        rows: of that manifest, usable by the task.
        features: of its clips, by encoder.

    Raises:
        ManifestError: it has no readable labelled clip in test.
    """
    task = judged[0].labels.task
    readable = set.intersection(*(found.readable() for found in features.values()))
    examples = examples_of(rows, task, readable, groups)
    labels = examples.labels
    if not (labels.splits == "test").any():
        raise ManifestError(
            f"task {task.name!r} has no readable labelled clip in split 'test'",
            "Label some, or leave the transfer out.",
            target,
        )
    found = []
    for one in judged:
        material = Material(examples, features[one.encoder])
        strict = judge(one.name, one.probe, material, labels)
        found.append(Transfer(target, "strict", strict))
        if task.kind == "regression" and (labels.splits == "train").any():
            adjust = _recalibration(one.labels, labels)
            again = judge(one.name, one.probe, material, labels, adjust)
            found.append(Transfer(target, "recalibrated", again))
    return found


def _recalibration(source: Labels, target: Labels) -> Callable[[Floats], Floats]:
    """From the mean and deviation of one's training labels to those of the other's."""

    def moments(labels: Labels) -> tuple[float, float]:
        values = labels.values[labels.splits == "train"]
        return float(values.mean()), float(values.std())

    (mean, deviation), (other_mean, other_deviation) = moments(source), moments(target)
    return lambda output: (output - mean) / deviation * other_deviation + other_mean
