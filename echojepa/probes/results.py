"""Results as plain JSON: every score with its interval, by group, and every difference."""

from __future__ import annotations

from typing import Any

from echojepa.probes.intervals import differences
from echojepa.probes.linear import ProbeResult


def described(result: ProbeResult) -> dict[str, Any]:
    """One probe on one task."""
    return {
        "task": result.task.name,
        "features": result.features,
        "regularisation": result.regularisation,
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


def differences_to(name: str, results: list[ProbeResult]) -> list[dict[str, Any]]:
    """Test scores of these features minus those of all others, task by task, over patients."""
    found = []
    for ours in results:
        for theirs in results:
            if ours.features == name != theirs.features and ours.task is theirs.task:
                line = {"task": ours.task.name, "minus": theirs.features}
                found.append({**line, "intervals": differences(ours.drawn, theirs.drawn)})
    return found
