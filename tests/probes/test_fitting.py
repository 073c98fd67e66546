"""Fitting: train teaches, validation chooses, test does neither."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.toy import CLASS, NUMBER, features_of, fitted, toy

from echojepa.probes.examples import Examples, Material
from echojepa.probes.fitting import AnyProbe, fit_baseline, fit_probe, judge
from echojepa.probes.grid.config import GridConfig
from echojepa.probes.linear import LinearConfig
from echojepa.probes.tasks import Labels, Task

GRID = GridConfig(head="linear", lr=(1.0, 0.1, 1e-3), weight_decay=(0.1,), epochs=4)
BOTH = pytest.mark.parametrize("task", [NUMBER, CLASS], ids=lambda task: task.kind)
KINDS = pytest.mark.parametrize("config", [LinearConfig(), GRID], ids=lambda config: config.kind)
ROWS, VECTORS = toy((40, 40, 40))


def with_labels(material: Material, labels: Labels) -> Material:
    """The same features, other labels."""
    examples = material.examples
    assert isinstance(examples, Examples)
    return Material(replace(examples, labels=labels), material.features)


@KINDS
@BOTH
def test_test_labels_choose_nothing(task: Task, config: AnyProbe) -> None:
    """Where it would matter: with val and test exchanged, another head is chosen."""
    judged, material = fitted(ROWS, VECTORS, task, config)
    labels = judged.labels
    test = np.flatnonzero(labels.splits == "test")
    values = labels.values.copy()
    values[test] = values[np.random.default_rng(0).permutation(test)]
    other = replace(labels, values=values)
    again = fit_probe(config, with_labels(material, other), other)
    every = np.arange(len(values))
    assert again.chosen == judged.probe.chosen
    said = judged.probe.predict(material, every)
    assert again.predict(material, every).tobytes() == said.tobytes()
    swap = {"train": "train", "val": "test", "test": "val"}
    exchanged = replace(other, splits=np.array([swap[s] for s in labels.splits.tolist()]))
    wrong = fit_probe(config, with_labels(material, exchanged), exchanged)
    assert wrong.chosen != judged.probe.chosen, "this test shows nothing"


@KINDS
@BOTH
def test_features_of_val_and_test_touch_no_scaler(task: Task, config: AnyProbe) -> None:
    """A probe of a single candidate, which there is nothing to choose of, is that of train."""
    if isinstance(config, GridConfig):
        config = config.model_copy(update={"lr": (0.1,), "epochs": 1, "warmup_epochs": (0,)})
    judged, material = fitted(ROWS, VECTORS, task, config)
    moved = VECTORS.copy()
    moved[np.array(ROWS["split"].to_pylist()) == "test"] += 100
    far = Material(material.examples, features_of(ROWS, moved))
    again = fit_probe(config, far, judged.labels)
    every = np.arange(len(judged.labels.values))
    said = judged.probe.predict(material, every)
    assert again.predict(material, every).tobytes() == said.tobytes()


@BOTH
def test_a_result_is_that_of_the_test_split(task: Task) -> None:
    judged, material = fitted(ROWS, VECTORS, task)
    assert judged.result.predictions.counts()["num_test_patients"] == 40
    assert judged.result.val != judged.result.test
    shifted = judge("a", judged.probe, material, judged.labels, lambda output: 0 * output + 1)
    assert np.unique(shifted.predictions.output).tolist() == [1.0]


def test_the_baseline_counts_studies_not_clips() -> None:
    judged, material = fitted(ROWS, VECTORS, NUMBER)
    train = [r for r in ROWS.to_pylist() if r["split"] == "train"]
    of_study = {r["study_id"]: r["lvef"] for r in train}
    assert len(train) > len(of_study) == 40
    said = fit_baseline(judged.labels).predict(material, np.arange(3))
    assert said == pytest.approx([np.mean(list(of_study.values()))] * 3)
