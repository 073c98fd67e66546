"""Results as plain JSON: every score with its interval, by group, and every difference."""

from __future__ import annotations

from typing import Any

import numpy as np

from echojepa.probes.intervals import differences, intervals, patient_draws
from echojepa.probes.linear import ProbeResult
from echojepa.probes.predictions import Predictions


def described(result: ProbeResult) -> dict[str, Any]:
    """One probe on one task."""
    return {
        "task": result.task.name,
        "features": result.features,
        "regularisation": result.regularisation,
        "level": "study" if result.task.by_study else "clip",
        **_counts(result.predictions),
        "val": result.val,
        "test": result.test,
        "test_intervals": result.intervals,
        "classes_not_in_training": result.predictions.unknown_classes,
        "groups": by_group(result.predictions),
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


def differences_to(name: str, results: list[ProbeResult]) -> list[dict[str, Any]]:
    """Test scores of these features minus those of all others, task by task, over patients."""
    found = []
    for ours in results:
        for theirs in results:
            if ours.features == name != theirs.features and ours.task is theirs.task:
                line = {"task": ours.task.name, "minus": theirs.features}
                found.append({**line, "intervals": differences(ours.drawn, theirs.drawn)})
    return found


def _counts(predictions: Predictions) -> dict[str, int]:
    patients = len(np.unique(predictions.patients))
    return {"num_test": len(predictions.ids), "num_test_patients": patients}


def by_group(predictions: Predictions) -> list[dict[str, Any]]:
    """The test scores of every group, with intervals over its own patients."""
    found = []
    for column, values in predictions.groups.items():
        for value in np.unique(values).tolist():
            part = predictions.only(values == value)
            drawn = part.scores(patient_draws(part.patients))
            scores = {"test": part.metrics(), "test_intervals": intervals(drawn)}
            found.append({"column": column, "value": value, **_counts(part), **scores})
    return found
