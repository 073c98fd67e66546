"""Does a probe hold on other people's patients?

Every fitted probe is judged on the test split of another manifest: strictly, as it is; and, for
numbers, re-calibrated by the mean and deviation of that manifest's training labels, which is what
some published "zero-shot" figures really are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from echojepa.errors import ManifestError
from echojepa.probes.examples import Material, examples_of
from echojepa.probes.fitting import Judged, ProbeResult, judge
from echojepa.probes.grid.target import Target
from echojepa.probes.leaks import Overlap, Pretraining
from echojepa.probes.metrics import Floats
from echojepa.probes.results import described
from echojepa.probes.store import Features
from echojepa.probes.tasks import Labels, labelled_rows, labels_of, require_labels, with_clips


class OtherPatients(NamedTuple):
    """Another manifest."""

    name: str
    rows: pa.Table
    """Its labelled clips."""
    features: Mapping[str, Features]
    """Of those of its test split, by encoder."""
    pretraining: Mapping[str, Pretraining]
    """What is known of its test patients, by encoder."""


class Transfer(NamedTuple):
    """A probe on other patients."""

    target: str
    """Name of the other manifest."""
    calibration: Literal["strict", "recalibrated"]
    result: ProbeResult
    num_overlapping: int
    """Test patients of the other manifest whom the probe was fitted or chosen on."""
    pretraining: Pretraining
    """What is known of them and the encoder."""

    def described(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "target": self.target,
            "calibration": self.calibration,
            "probe_patients": {"num_overlapping": self.num_overlapping},
            "pretraining_patients": self.pretraining._asdict(),
            **described(self.result),
        }


def transferred(
    target: OtherPatients, judged: Sequence[Judged], groups: Sequence[str], overlap: Overlap
) -> list[Transfer]:
    """Judge the probes of one task on another manifest; those whose encoders failed are left out.

    Raises:
        ManifestError: it has no readable labelled clip in test, or not one label per study; or some
            of its test patients were among those that the probes were fitted or chosen on, and
            `overlap` is "stop".
    """
    source = judged[0].labels
    task = source.task
    rows = labelled_rows(target.rows, task, ("test",))
    train, test = (rows.filter(pc.equal(rows["split"], split)) for split in ("train", "test"))
    num_overlapping = _overlapping(source, test, overlap, target.name)
    readable = set.intersection(*(found.readable() for found in target.features.values()))
    require_labels(with_clips(test, readable), task, ("test",))
    examples = examples_of(test, task, readable, groups)
    labels = examples.labels
    ways: dict[Literal["strict", "recalibrated"], Callable[[Floats], Floats]] = {
        "strict": np.asarray
    }
    if task.kind == "regression" and len(train):
        ways["recalibrated"] = _recalibration(source, labels_of(train, task))
    found = []
    for one in (one for one in judged if one.encoder in target.features):
        material = Material(examples, target.features[one.encoder])
        for calibration, adjust in ways.items():
            result = judge(one.name, one.probe, material, labels, adjust)
            known = target.pretraining[one.encoder]
            found.append(Transfer(target.name, calibration, result, num_overlapping, known))
    return found


def _overlapping(source: Labels, test: pa.Table, overlap: Overlap, where: str) -> int:
    """How many test patients the probes have learnt from."""
    learnt_from = set(source.patients[source.splits != "test"].tolist())
    tested = set(test["patient_id"].to_pylist())
    same = tested & learnt_from
    if same and overlap == "stop":
        raise ManifestError(
            f"{len(same)} of {len(tested)} test patients are among those that the probes were "
            "fitted or chosen on",
            "Take them out; or, if others have the same ids, rename them; or set overlap=mark to "
            "have it said in the results.",
            where,
        )
    return len(same)


def _recalibration(source: Labels, target: Labels) -> Callable[[Floats], Floats]:
    """From the mean and deviation of one's training labels to those of the other's.

    A study counts once, however many clips it has, where studies are judged.
    """

    def scale(labels: Labels) -> Target:
        train = labels.splits == "train"
        return Target.of("regression", labels.values[train], labels.weights()[train])

    one, other = scale(source), scale(target)
    return lambda output: (output - one.mean) / one.deviation * other.deviation + other.mean
