"""What a probe says of clips or studies, and how right it is.

Shapes: n predictions (of clips, or of studies), C classes, R rows of weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echojepa.probes.metrics import (
    Floats,
    Scores,
    classification_metrics,
    classification_scores,
    regression_metrics,
    regression_scores,
)
from echojepa.probes.tasks import Labels, Task


@dataclass(frozen=True)
class Predictions:
    """Of one split."""

    task: Task
    ids: NDArray[np.str_]
    """Clip ids, or study ids where studies are judged, [n]."""
    patients: NDArray[np.str_]
    """Whose they are, [n]."""
    truth: NDArray[Any]
    """Raw units, or class names, [n]."""
    output: Floats
    """Numbers in raw units [n], or probabilities [n, C]."""
    classes: NDArray[Any]
    """Those that the probe knows, [C]; none of a number."""
    groups: Mapping[str, NDArray[np.str_]]
    """By column, such as the vendor: what it says of them, [n]."""

    @property
    def predicted(self) -> NDArray[Any]:
        """Raw units, or the likeliest class, [n]."""
        return self.classes[self.output.argmax(axis=1)] if len(self.classes) else self.output

    @property
    def unknown_classes(self) -> list[str]:
        """Classes that occur and that the probe was not trained on."""
        known = set(self.classes.tolist())
        return sorted(set(self.truth.tolist()) - known) if len(self.classes) else []

    def scores(self, weights: Floats) -> Scores:
        """For every row of weights, [R, n]."""
        if len(self.classes):
            return classification_scores(self.truth, self.output, self.classes, weights)
        return regression_scores(self.truth, self.output, weights, self.task.cutoffs)

    def metrics(self) -> dict[str, float]:
        """With every prediction counting once."""
        if len(self.classes):
            return classification_metrics(self.truth, self.output, self.classes)
        return regression_metrics(self.truth, self.output, self.task.cutoffs)

    def counts(self) -> dict[str, int]:
        """How many there are, and of how many patients."""
        return {"num_test": len(self.ids), "num_test_patients": len(np.unique(self.patients))}

    def only(self, part: NDArray[np.bool_]) -> Predictions:
        """Some of them."""
        return Predictions(
            self.task,
            self.ids[part],
            self.patients[part],
            self.truth[part],
            self.output[part],
            self.classes,
            {name: values[part] for name, values in self.groups.items()},
        )


def group_means(output: Floats, group: NDArray[np.int64]) -> Floats:
    """Outputs [n] or [n, C] averaged over those of every group, 0 .. m-1, to [m] or [m, C]."""
    counts = np.bincount(group)
    total = np.zeros((len(counts), *output.shape[1:]))
    np.add.at(total, group, output)
    return np.asarray(total / counts.reshape(-1, *[1] * (output.ndim - 1)))


def predictions_of(
    labels: Labels, part: NDArray[np.bool_], output: Floats, classes: NDArray[Any]
) -> Predictions:
    """What was said of the clips of a split; averaged over studies, where the task judges them.

    A study of forty clips is one prediction, as is one of two.

    Args:
        part: which of the labelled clips, [clips].
        output: of these, numbers or probabilities.
    """
    ids = labels.studies[part] if labels.task.by_study else np.array(labels.clip_ids, str)[part]
    names, first, group = np.unique(ids, return_index=True, return_inverse=True)
    if not labels.task.by_study:  # as they come
        names, first, group = ids, np.arange(len(ids)), np.arange(len(ids))
    return Predictions(
        task=labels.task,
        ids=names,
        patients=labels.patients[part][first],
        truth=labels.values[part][first],
        output=group_means(output, group),
        classes=classes,
        groups={name: values[part][first] for name, values in labels.groups.items()},
    )
