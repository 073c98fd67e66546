"""What an evaluation says of every encoder, as numbers with their draws of test patients.

A *measure* is one score of one task under one condition. The draws of patients are the same for all
encoders (`probes.intervals`), so means over seeds and differences between arms are paired.

Shapes: R draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import numpy as np

from echojepa.probes.intervals import patient_draws
from echojepa.probes.metrics import HEADLINE, Floats, Scores
from echojepa.probes.predictions import Predictions
from echojepa.probes.suites.findings import Findings, TaskFindings
from echojepa.probes.suites.robustness import SKILL_LOST

Condition = Literal["test", "few labels", "corrupted", "unseen machine", "other patients"]
_MACHINE = "vendor"
_LOWER_IS_BETTER = {"mae", "rmse", "brier", "ece", SKILL_LOST}
ALL = "all corruptions"


class Measure(NamedTuple):
    """One score."""

    task: str
    condition: Condition
    detail: str
    """Share of the labels, corruption and severity, machines, name of the other patients."""
    metric: str

    @property
    def lower_is_better(self) -> bool:
        """Whether less of it is better."""
        return self.metric in _LOWER_IS_BETTER

    def __str__(self) -> str:
        where = {
            "test": "",
            "few labels": f", {self.detail} of the labels",
            "corrupted": f", {self.detail}",
            "unseen machine": f", unseen machine {self.detail}",
            "other patients": f", {self.detail}",
        }[self.condition]
        return f"{self.task} {self.metric.replace('_', ' ')}{where}"


class Drawn(NamedTuple):
    """A score of one encoder."""

    value: float
    draws: Floats
    """The same in every draw of test patients, [R]."""
    num_patients: int
    """So many there are."""

    def minus(self, other: Drawn) -> Drawn:
        """The difference, paired by patients."""
        draws = self.draws - other.draws
        return Drawn(self.value - other.value, draws, min(self.num_patients, other.num_patients))


Measured = Mapping[Measure, Drawn]
"""All that is known of one encoder."""


def measured(findings: Findings) -> dict[str, dict[Measure, Drawn]]:
    """By encoder and of the baseline; all of an evaluation with one probe per encoder."""
    found: dict[str, dict[Measure, Drawn]] = {}
    for name, measure, drawn in _all(findings):
        found.setdefault(name, {})[measure] = drawn
    for of_one in found.values():
        of_one |= _means_over_corruptions(of_one)
    return found


class _Where(NamedTuple):
    """Whose scores, and of what."""

    encoder: str
    task: str
    condition: Condition
    detail: str
    num_patients: int


def _all(findings: Findings) -> Iterator[tuple[str, Measure, Drawn]]:
    counts = {name: _count(one.worth.predictions) for name, one in findings.tasks.items()}
    for result in findings.results:
        where = _Where(result.features, result.task.name, "test", "", _count(result.predictions))
        yield from _scores(where, result.test, result.drawn)
    for one in findings.tasks.values():
        yield from _on_unseen_machines(one)
    for point in findings.label_curve:
        where = _Where(
            point.features, point.task, "few labels", f"{point.share:g}", counts[point.task]
        )
        yield from _scores(where, point.test, point.drawn)
    for worse in (point for point in findings.severity if point.severity > 0):
        detail = f"{worse.kind} {worse.severity:g}"
        where = _Where(worse.encoder, worse.task, "corrupted", detail, counts[worse.task])
        values = {**worse.test, SKILL_LOST: worse.skill_lost}
        yield from _scores(where, values, worse.drawn)
    for other in findings.transfers:
        result, detail = other.result, f"{other.target}, {other.calibration}"
        count = _count(result.predictions)
        where = _Where(result.features, result.task.name, "other patients", detail, count)
        yield from _scores(where, result.test, result.drawn)


def _scores(
    where: _Where, values: Mapping[str, float], draws: Scores
) -> Iterator[tuple[str, Measure, Drawn]]:
    for metric, value in values.items():
        measure = Measure(where.task, where.condition, where.detail, metric)
        yield where.encoder, measure, Drawn(value, draws[metric], where.num_patients)


def _count(said: Predictions) -> int:
    return len(np.unique(said.patients))


def _on_unseen_machines(one: TaskFindings) -> Iterator[tuple[str, Measure, Drawn]]:
    """Test scores on machines that the probes have not seen in training, all of them together."""
    labels = one.examples.labels
    if _MACHINE not in labels.groups:
        return
    machines, is_test = labels.groups[_MACHINE], labels.splits == "test"
    unseen = sorted(set(machines[is_test].tolist()) - set(machines[~is_test].tolist()))
    if not unseen:
        return
    for result in (*(judged.result for judged in one.judged), one.worth):
        said = result.predictions
        part = said.only(np.isin(said.groups[_MACHINE], unseen))
        drawn = part.scores(patient_draws(part.patients))
        where = _Where(
            result.features, one.task.name, "unseen machine", ", ".join(unseen), _count(part)
        )
        yield from _scores(where, part.metrics(), drawn)


def _means_over_corruptions(of_one: Measured) -> dict[Measure, Drawn]:
    """The mean skill lost of every task."""
    lost: dict[str, list[Drawn]] = {}
    for measure, drawn in of_one.items():
        if measure.metric == SKILL_LOST:
            lost.setdefault(measure.task, []).append(drawn)
    return {
        Measure(task, "corrupted", ALL, SKILL_LOST): Drawn(
            float(np.mean([one.value for one in some])),
            np.asarray(np.mean([one.draws for one in some], axis=0)),
            some[0].num_patients,
        )
        for task, some in lost.items()
    }


def in_tables(measures: list[Measure], kinds: Mapping[str, str]) -> dict[str, list[Measure]]:
    """What the two tables show, by title: the columns of the published one, and what lies beyond.

    Args:
        measures: all there are.
        kinds: regression or classification, by task.
    """
    few = [m.detail for m in measures if m.condition == "few labels"]
    fewest = min(few, key=float) if few else None
    main: list[Measure] = []
    beyond: list[Measure] = []
    for m in measures:
        headline = m.metric == HEADLINE[kinds[m.task]]
        if m.condition == "test" and (headline or m.metric == "r2"):
            main.append(m)
        if m.condition == "few labels" and m.detail == fewest and headline:
            (main if kinds[m.task] == "classification" else beyond).append(m)
        if m.condition == "corrupted" and m.detail == ALL:
            beyond.append(m)
        if m.condition == "unseen machine" and headline:
            beyond.append(m)
        if m.condition == "other patients" and headline and m.detail.endswith(", strict"):
            beyond.append(m)
    tables = {"Frozen encoders": main, "Beyond the test patients of the same machines": beyond}
    return {title: shown for title, shown in tables.items() if shown}
