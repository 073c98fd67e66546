"""What is said of clips becomes what is said of studies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from echojepa.probes.predictions import predictions_of
from echojepa.probes.tasks import Labels, Task

EF = Task(name="ef", label="lvef", kind="regression")
VIEW = Task(name="view", label="view", kind="classification", level="study")
LABELS = Labels(
    task=EF,
    clip_ids=["c5", "c1", "c4", "c2", "c3", "c0"],
    patients=np.array(["p2", "p1", "p2", "p1", "p1", "p0"]),
    studies=np.array(["s2", "s1", "s2", "s1", "s1", "s0"]),
    splits=np.array(["test"] * 5 + ["train"]),
    values=np.array([40.0, 60.0, 40.0, 60.0, 60.0, 50.0]),
    groups={"vendor": np.array(["b", "a", "b", "a", "a", "c"])},
)
TEST = LABELS.splits == "test"


def test_numbers_of_a_study_are_averaged() -> None:
    found = predictions_of(LABELS, TEST, np.array([41.0, 61.0, 45.0, 55.0, 58.0]), np.empty(0))
    assert found.ids.tolist() == ["s1", "s2"]
    assert found.patients.tolist() == ["p1", "p2"]
    assert found.truth.tolist() == [60.0, 40.0]
    assert found.predicted.tolist() == [58.0, 43.0]
    assert found.groups["vendor"].tolist() == ["a", "b"]
    assert found.metrics()["mae"] == pytest.approx(2.5)
    one = found.only(np.array([False, True]))
    assert (one.ids.tolist(), one.predicted.tolist()) == (["s2"], [43.0])


def test_probabilities_of_a_study_are_averaged() -> None:
    names = np.array(["b", "a", "b", "a", "a", "a"])
    labels = replace(LABELS, task=VIEW, values=names)
    said = np.array([[0.9, 0.1], [0.4, 0.6], [0.0, 1.0], [0.9, 0.1], [0.2, 0.8]])
    found = predictions_of(labels, TEST, said, np.array(["a", "b"]))
    assert found.output == pytest.approx(np.array([[0.5, 0.5], [0.45, 0.55]]))
    assert found.predicted.tolist() == ["a", "b"]
    assert found.metrics()["accuracy"] == 1.0


def test_clips_stay_as_they_come() -> None:
    labels = replace(LABELS, task=EF.model_copy(update={"level": "clip"}))
    said = np.arange(5.0)
    found = predictions_of(labels, TEST, said, np.empty(0))
    assert found.ids.tolist() == LABELS.clip_ids[:5]
    assert found.predicted.tolist() == said.tolist()
    assert found.truth.tolist() == LABELS.values[:5].tolist()


def test_clips_of_a_study_share_its_weight() -> None:
    assert LABELS.weights() == pytest.approx([1 / 2, 1 / 3, 1 / 2, 1 / 3, 1 / 3, 1])
    by_clip = replace(LABELS, task=EF.model_copy(update={"level": "clip"}))
    assert by_clip.weights().tolist() == [1.0] * 6
