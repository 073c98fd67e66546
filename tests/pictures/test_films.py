"""Clips that play: the right ones, with what was said of them."""

from __future__ import annotations

import numpy as np
import pytest
from support.pages import Page

from echojepa.pictures.films import Case, best_and_worst_section, extremes, said_of
from echojepa.probes.predictions import Predictions
from echojepa.probes.tasks import Task

EF = Task(name="ef", label="lvef", kind="regression", unit="%")
VIEW = Task(name="view", label="view", kind="classification")
NONE = np.empty((0, 16, 16, 3), np.uint8)


def predictions(task: Task, truth: list[object], output: object, classes: object) -> Predictions:
    """Of ids a, b, c and so on."""
    ids = np.array([chr(ord("a") + i) for i in range(len(truth))])
    found = np.array(output, np.float64)
    return Predictions(task, ids, ids, np.array(truth), found, np.array(classes), {})


def test_numbers_are_ranked_by_their_distance_to_the_truth() -> None:
    said = predictions(EF, [50.0, 50.0, 50.0, 30.0, 30.0], [51.0, 20.0, 50.5, 50.0, 29.5], [])
    assert extremes(said, 2) == (["c", "e"], ["b", "d"])
    assert extremes(said, 9) == (["c", "e"], ["b", "d"])  # none is in both
    assert extremes(said, 0) == ([], [])


def test_classes_are_ranked_by_the_probability_of_the_true_one() -> None:
    """An unsure right answer is worse than a sure one; a class not in training is worst of all."""
    output = [[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.5, 0.5]]
    said = predictions(VIEW, ["A4C", "A4C", "PLAX", "PSAX"], output, ["A4C", "PLAX"])
    assert extremes(said, 2) == (["a", "b"], ["d", "c"])


@pytest.mark.parametrize(
    ("predicted", "truth", "unit", "said"),
    [
        (52.04, 38.0, "%", "predicted 52, true 38 % (s7)"),
        (0.00012345, -8.0, "", "predicted 0.000123, true -8 (s7)"),
        (1.954, 0.0, "cm", "predicted 1.95, true 0 cm (s7)"),
        (1234.6, 999.9, "mL", "predicted 1235, true 1000 mL (s7)"),
        ("A4C", "PLAX", "", "predicted A4C, true PLAX (s7)"),
    ],
)
def test_captions(predicted: float | str, truth: float | str, unit: str, said: str) -> None:
    assert said_of(Case("s7", truth, predicted, NONE, 10.0), unit) == said


def test_a_section_plays_best_and_worst() -> None:
    frames = [np.full((5, 17, 32, 3), shade, np.uint8) for shade in (40, 120, 200)]
    best = [Case("<a>", 38.0, 38.2, frames[0], 10.0), Case("b", 50.0, 51.0, frames[1], 10.0)]
    worst = [Case("c", 60.0, 30.0, frames[2], 10.0)]
    page = Page(best_and_worst_section("EF: <ours>", best, worst, "%"))
    films = page.films()
    assert list(films) == [said_of(case, "%") for case in (*best, *worst)]
    for film, shade in zip(films.values(), (40, 120, 200), strict=True):
        assert film.shape == (5, 18, 32, 3)
        assert abs(float(film.mean()) - shade) < 3
    assert page.text.index("Best predictions") < page.text.index("Worst predictions")
