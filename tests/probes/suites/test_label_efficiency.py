"""Few labels: whole patients, every class among them, and worse probes the fewer there are."""

from __future__ import annotations

import numpy as np
import pytest
from support.bench import linear_result

from echojepa.probes.suites.label_efficiency import label_curve, with_few_labels
from echojepa.probes.tasks import Labels, Task

EF = Task(name="ef", label="lvef", kind="regression")
VIEW = Task(name="view", label="view", kind="classification")
RNG = np.random.default_rng(0)
NUM_PATIENTS = 300
PATIENTS = np.array([f"p{i:03d}" for i in range(NUM_PATIENTS)]).repeat(2)
SPLITS = np.array(["train"] * 400 + ["val"] * 100 + ["test"] * 100)
FEATURES = RNG.normal(size=(NUM_PATIENTS, 30)).repeat(2, axis=0)
NUMBERS = 55 + FEATURES @ np.linspace(-2, 2, 30) + RNG.normal(size=NUM_PATIENTS).repeat(2)
VIEWS = np.where(np.arange(2 * NUM_PATIENTS) % 20 < 2, "rare", "common")


def labels(task: Task) -> Labels:
    """Two clips of one study of every patient."""
    ids = [f"c{i}" for i in range(len(PATIENTS))]
    values = NUMBERS if task is EF else VIEWS
    return Labels(task, ids, PATIENTS, PATIENTS, SPLITS, values)


def kept(few: Labels) -> set[str]:
    """Training patients that are left."""
    return set(few.patients[few.splits == "train"].tolist())


@pytest.mark.parametrize("task", [EF, VIEW], ids=lambda task: task.kind)
def test_whole_patients_are_drawn_and_others_stay(task: Task) -> None:
    few = with_few_labels(labels(task), 0.1, draw=0)
    assert len(kept(few)) == 20
    assert (few.splits == "train").sum() == 40  # both clips of each
    for split in ("val", "test"):
        assert np.array_equal(few.splits == split, split == SPLITS)
    everybody = with_few_labels(labels(task), 1.0, draw=0)
    assert np.array_equal(everybody.splits, SPLITS)


def test_a_smaller_share_is_part_of_a_larger_one_and_draws_differ() -> None:
    shares = [kept(with_few_labels(labels(EF), share, draw=1)) for share in (0.05, 0.1, 0.5)]
    assert shares[0] < shares[1] < shares[2]
    other = kept(with_few_labels(labels(EF), 0.1, draw=2))
    assert len(other & shares[1]) < 10


def test_every_class_and_every_fifth_keeps_its_share() -> None:
    few = with_few_labels(labels(VIEW), 0.1, draw=0)
    assert (few.values[few.splits == "train"] == "rare").mean() == pytest.approx(0.1)
    least = with_few_labels(labels(VIEW), 0.001, draw=0)
    assert set(least.values[least.splits == "train"]) == {"rare", "common"}
    for draw in range(5):
        few = with_few_labels(labels(EF), 0.05, draw)
        values = few.values[few.splits == "train"]
        edges = np.quantile(NUMBERS[SPLITS == "train"], [0, 0.2, 0.4, 0.6, 0.8, 1])
        assert (np.histogram(values, edges)[0] == 4).all()  # two patients of each fifth


def test_more_labels_are_better_and_all_are_the_probe_itself() -> None:
    known = labels(EF)
    points = label_curve(known, (1.0, 0.05, 0.3), lambda few: linear_result(few, "ours", FEATURES))
    assert [p.share for p in points] == [0.05, 0.3, 1.0]
    assert [p.num_patients for p in points] == [10, 60, 200]
    errors = [p.test["mae"] for p in points]
    assert errors[0] > 1.5 * errors[1] > 1.5 * errors[2]
    whole = linear_result(known, "ours", FEATURES)
    assert points[-1].test == pytest.approx(whole.test)
    assert points[-1].test_intervals["mae"] == pytest.approx(whole.intervals["mae"])
    low, high = points[0].test_intervals["mae"]
    assert low < errors[0] < high
