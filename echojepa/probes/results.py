"""Results as plain JSON: every score with its interval, by group, and every difference."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import pyarrow as pa

from echojepa.probes.fitting import ProbeResult
from echojepa.probes.intervals import differences
from echojepa.probes.metrics import HEADLINE, goodness


def described(result: ProbeResult) -> dict[str, Any]:
    """One probe on one task."""
    return {
        "task": result.task.name,
        "features": result.features,
        "chosen": result.chosen,
        "level": "study" if result.task.by_study else "clip",
        **result.predictions.counts(),
        "val": result.val,
        "test": result.test,
        "test_intervals": result.intervals,
        "classes_not_in_training": result.predictions.unknown_classes,
        "groups": result.by_group,
    }


def lines_of(result: ProbeResult) -> list[dict[str, str]]:
    """The test predictions of a probe, one per study or clip."""
    said = result.predictions
    level = "study" if result.task.by_study else "clip"
    return [
        {
            "task": result.task.name,
            "features": result.features,
            "level": level,
            "id": unit,
            "truth": str(truth),
            "predicted": str(predicted),
        }
        for unit, truth, predicted in zip(said.ids, said.truth, said.predicted, strict=True)
    ]


def all_differences(results: Sequence[ProbeResult]) -> list[dict[str, Any]]:
    """Test scores minus those of every later result of the same task, over patients."""
    return [
        {
            "task": one.task.name,
            "features": one.features,
            "minus": other.features,
            "intervals": differences(one.drawn, other.drawn),
        }
        for one, other in combinations(results, 2)
        if one.task.name == other.task.name
    ]


def ranked(results: Sequence[ProbeResult]) -> list[dict[str, Any]]:
    """Task by task, whose features are best on validation: test has no say in it."""
    found = []
    for task in dict.fromkeys(result.task.name for result in results):
        of_task = [r for r in results if r.task.name == task and r.chosen is not None]
        kind = of_task[0].task.kind
        metric = HEADLINE[kind]
        scores = {r.features: goodness(kind, r.val[metric]) for r in of_task}
        names = sorted(scores, key=scores.__getitem__, reverse=True)
        found.append({"task": task, "by": metric, "best_first": names})
    return found


def score_table(results: Sequence[ProbeResult]) -> pa.Table:
    """Every test score of every result and group, a line each, with its interval."""
    lines = []
    for result in results:
        whole = {"column": None, "value": None, "test": result.test}
        parts = [{**whole, "test_intervals": result.intervals}, *result.by_group]
        for part in parts:
            for name, score in part["test"].items():
                low, high = part["test_intervals"][name]
                lines.append(
                    {
                        "task": result.task.name,
                        "features": result.features,
                        "group_column": part["column"],
                        "group": part["value"],
                        "metric": name,
                        "score": score,
                        "low": low,
                        "high": high,
                    }
                )
    return pa.Table.from_pylist(lines)
