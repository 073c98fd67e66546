"""Arms over seeds against direct NumPy: means, intervals over patients, paired differences."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from support.judged import judged

from echojepa.benchmark.board import Board, board_of, lines_of
from echojepa.benchmark.measures import Drawn, Measure, in_tables
from echojepa.probes.fitting import BASELINE, ProbeResult
from echojepa.probes.intervals import patient_draws
from echojepa.probes.tasks import Task

EF = Task(name="EF", label="lvef", kind="regression", unit="%")
MAE = Measure("EF", "test", "", "mae")
SEEDS = (0, 1, 2)


def measured_of(result: ProbeResult) -> dict[Measure, Drawn]:
    return {
        Measure("EF", "test", "", name): Drawn(value, result.drawn[name], 40)
        for name, value in result.test.items()
    }


RESULTS = {
    (arm, seed): judged(EF, f"{arm} {seed}", error, seed=10 * place + seed)
    for place, (arm, error) in enumerate({"good": 2.0, "bad": 9.0, "like bad": 6.7}.items())
    for seed in SEEDS
}


@pytest.fixture(scope="module")
def board() -> Board:
    names = {result.features: key for key, result in RESULTS.items()}
    known = {result.features: measured_of(result) for result in RESULTS.values()}
    known[BASELINE] = measured_of(judged(EF, BASELINE, 12.0, seed=99))
    return board_of(known, names)


def resampled_errors(arm: str) -> NDArray[np.float64]:
    """MAE in every draw of patients, by NumPy alone, averaged over seeds."""
    found = []
    for seed in SEEDS:
        said = RESULTS[arm, seed].predictions
        errors = np.abs(said.output - said.truth)
        weights = patient_draws(said.patients)
        found.append((weights * errors).sum(axis=1) / weights.sum(axis=1))
    return np.asarray(np.mean(found, axis=0))


def test_a_score_is_the_mean_over_seeds_and_its_interval_is_over_patients(board: Board) -> None:
    score = board.score("good", MAE)
    assert score is not None
    by_seed = [RESULTS["good", seed].test["mae"] for seed in SEEDS]
    assert list(score.by_seed.values()) == by_seed
    assert score.value == pytest.approx(np.mean(by_seed))
    assert score.spread == pytest.approx(np.std(by_seed, ddof=1))
    expected = np.percentile(resampled_errors("good"), (2.5, 97.5))
    assert score.interval == pytest.approx(tuple(expected))


def test_differences_are_paired_by_patients(board: Board) -> None:
    apart = board.difference("good", "bad", MAE)
    assert apart is not None and apart.is_clear
    expected = np.percentile(resampled_errors("good") - resampled_errors("bad"), (2.5, 97.5))
    assert apart.interval == pytest.approx(tuple(expected))
    alike = board.difference("bad", "like bad", MAE)
    assert alike is not None and not alike.is_clear
    same = board.difference("good", "good", MAE)
    assert same is not None and same.interval == (0, 0) and not same.is_clear


def test_only_seeds_that_both_have_are_compared_and_the_baseline_has_all(board: Board) -> None:
    fewer = Board({**board.arms, "good": {2: board.arms["good"][2]}})
    apart = fewer.difference("good", "bad", MAE)
    assert apart is not None and list(apart.by_seed) == [2]
    over = board.difference("good", BASELINE, MAE)
    assert over is not None and list(over.by_seed) == list(SEEDS)
    assert Board({**board.arms, "none": {}}).difference("none", "bad", MAE) is None
    assert Board({**board.arms, "none": {}}).score("none", MAE) is None


def test_a_winner_beats_every_other_arm(board: Board) -> None:
    assert board.clear_winner(MAE) == "good"
    without = Board({name: known for name, known in board.arms.items() if name != "good"})
    assert without.clear_winner(MAE) is None
    pearson = MAE._replace(metric="pearson")
    assert not pearson.lower_is_better and board.clear_winner(pearson) == "good"


@pytest.mark.parametrize(
    ("values", "num_patients", "is_clear"),
    [
        ((5.0, 5.0, 4.0), 10, True),
        ((5.0, 5.0, 1.0), 10, False),  # one seed says the opposite
        ((5.0, 5.0, 4.0), 9, False),
        ((5.0,), 10, False),
    ],
)
def test_a_clear_difference_needs_seeds_that_agree_and_patients(
    values: tuple[float, ...], num_patients: int, is_clear: bool
) -> None:
    """The interval over patients is far from zero in all cases."""
    draws = np.linspace(-0.1, 0.1, 50)
    one = {s: {MAE: Drawn(v, v + draws, num_patients)} for s, v in enumerate(values)}
    other = {s: {MAE: Drawn(2.0, 2.0 - draws, 40)} for s in SEEDS}
    apart = Board({"one": one, "other": other}).difference("one", "other", MAE)
    assert apart is not None and apart.interval.excludes_zero
    assert apart.is_clear == is_clear


def test_lines_hold_every_seed_every_mean_and_every_difference(board: Board) -> None:
    lines = [line for line in lines_of(board, ["bad"]) if line["metric"] == "mae"]
    good = [line for line in lines if line["arm"] == "good"]
    assert [(line["minus"], line["seed"]) for line in good] == [
        (minus, seed) for minus in (None, "bad") for seed in (*SEEDS, None)
    ]
    assert {line["minus"] for line in lines if line["arm"] == "bad"} == {None}
    assert all((line["low"] is None) == (line["seed"] is not None) for line in lines)


def test_tables_show_the_published_columns_and_what_lies_beyond() -> None:
    every = [
        Measure("EF", "test", "", "mae"),
        Measure("EF", "test", "", "r2"),
        Measure("EF", "test", "", "bias"),
        Measure("view", "test", "", "balanced_accuracy"),
        Measure("view", "few labels", "0.5", "balanced_accuracy"),
        Measure("view", "few labels", "0.05", "balanced_accuracy"),
        Measure("EF", "few labels", "0.05", "mae"),
        Measure("EF", "corrupted", "haze 1", "mae"),
        Measure("EF", "corrupted", "all corruptions", "skill_lost"),
        Measure("EF", "unseen machine", "elara", "mae"),
        Measure("EF", "other patients", "children, strict", "mae"),
        Measure("EF", "other patients", "children, recalibrated", "mae"),
    ]
    main, beyond = in_tables(every, {"EF": "regression", "view": "classification"}).values()
    assert main == [every[i] for i in (0, 1, 3, 5)]
    assert beyond == [every[i] for i in (6, 8, 9, 10)]
