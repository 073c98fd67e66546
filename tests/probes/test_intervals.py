"""Intervals over patients: as wide as theory says, paired, and never over clips."""

from __future__ import annotations

import numpy as np
import pytest

from echojepa.probes.intervals import NUM_DRAWS, Interval, differences, intervals, patient_draws
from echojepa.probes.metrics import classification_scores, regression_scores

RNG = np.random.default_rng(0)


def test_every_draw_is_of_whole_patients() -> None:
    patients = np.array(["a", "b", "a", "c", "b", "a"])
    draws = patient_draws(patients)
    assert draws.shape == (NUM_DRAWS, 6)
    for name in "abc":
        mine = draws[:, patients == name]
        assert (mine == mine[:, :1]).all(), "the clips of a patient come and go together"
    per_patient = draws[:, [0, 1, 3]]
    assert (per_patient.sum(axis=1) == 3).all(), "as many patients as there are"
    assert per_patient.mean(axis=0) == pytest.approx(np.ones(3), abs=0.1)
    assert np.array_equal(draws, patient_draws(patients)), "the same for every set of features"


def test_the_interval_of_a_mean_is_that_of_theory() -> None:
    """The error of a mean over n independent patients is its deviation over sqrt(n)."""
    truth = RNG.normal(55, 10, 400)
    error = RNG.normal(0, 5, 400)
    patients = np.arange(400)
    scores = regression_scores(truth, truth + np.abs(error), patient_draws(patients))
    low, high = intervals(scores)["mae"]
    expected = 2 * 1.96 * np.abs(error).std() / np.sqrt(400)
    assert high - low == pytest.approx(expected, rel=0.15)
    assert low < np.abs(error).mean() < high


def test_many_clips_of_few_patients_are_not_many_patients() -> None:
    """Ten copies of every clip change nothing: the interval knows that they are the same people."""
    truth, error = RNG.normal(55, 10, 60), RNG.normal(0, 5, 60)
    once = regression_scores(truth, truth + error, patient_draws(np.arange(60)))
    owners, clips = np.repeat(np.arange(60), 10), np.repeat(truth, 10)
    often = regression_scores(clips, clips + np.repeat(error, 10), patient_draws(owners))
    for name, (low, high) in intervals(once).items():
        assert intervals(often)[name] == pytest.approx((low, high), rel=1e-9), name


def test_differences_are_paired() -> None:
    """A constant advantage is certain, however uncertain each of the two scores is."""
    truth, error = RNG.normal(55, 10, 50), np.abs(RNG.normal(0, 8, 50))
    draws = patient_draws(np.arange(50))
    worse = regression_scores(truth, truth + error + 1.0, draws)
    better = regression_scores(truth, truth + error, draws)
    assert intervals(worse)["mae"].low < intervals(better)["mae"].high, "each alone is unsure"
    found = differences(worse, better)["mae"]
    assert found == pytest.approx((1.0, 1.0))
    assert found.excludes_zero
    assert not differences(worse, worse)["mae"].excludes_zero
    assert Interval(-2.0, -1.0).excludes_zero and not Interval(-1.0, 1.0).excludes_zero


def test_scores_of_draws_are_those_of_the_repeated_clips() -> None:
    """Weights are a faster way to say it: the same numbers as from copies of clips."""
    truth = np.array(["A", "B", "C"])[RNG.integers(0, 3, 40)]
    given = RNG.dirichlet(np.ones(3), 40).round(1)  # ties
    classes = np.array(["A", "B", "C"])
    draws = patient_draws(np.arange(40))[:20]
    together = classification_scores(truth, given, classes, draws)
    for row, weights in enumerate(draws):
        copies = np.repeat(np.arange(40), weights.astype(int))
        ones = np.ones((1, len(copies)))
        alone = classification_scores(truth[copies], given[copies], classes, ones)
        for name, values in together.items():
            assert values[row] == pytest.approx(alone[name][0]), name
