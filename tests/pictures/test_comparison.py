"""The first table: any number of encoders and tasks, bold only where it is earned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.judged import judged
from support.pages import Page

from echojepa.pictures.comparison import comparison_section
from echojepa.pictures.looks import PALETTE, looks
from echojepa.pictures.tables import clearly_best
from echojepa.probes.fitting import BASELINE, ProbeResult
from echojepa.probes.tasks import Task

EF = Task(name="<EF>", label="lvef", kind="regression", unit="%")
VIEW = Task(name="view", label="view", kind="classification")
TASKS = [EF, VIEW, *(Task(name=f"t{i}", label="lvef", kind="regression") for i in range(3))]


def compared(results: list[ProbeResult]) -> Page:
    """The section of these results."""
    return Page(comparison_section(results, looks(r.features for r in results)))


def test_rows_are_encoders_and_columns_tasks() -> None:
    results = [
        judged(task, name, error)
        for task in (EF, VIEW)
        for name, error in (("<ours>", 0.1), ("other", 0.4), (BASELINE, 0.5))
    ]
    page = compared(results)
    assert page.rows[0] == ["features", "<EF>mae (%) ↓", "viewbalanced accuracy ↑"]
    assert [row[0] for row in page.rows[1:]] == ["<ours>", "other", BASELINE]
    for row, name in zip(page.rows[1:], ("<ours>", "other", BASELINE), strict=True):
        for cell, metric in zip(row[1:], ("mae", "balanced_accuracy"), strict=True):
            task = EF if metric == "mae" else VIEW
            result = next(r for r in results if (r.features, r.task) == (name, task))
            low, high = result.intervals[metric]
            assert cell == f"{result.test[metric]:.3f} [{low:.3f}, {high:.3f}]"
    assert len(page.images()) == 1


def test_bold_is_one_cell_per_task_and_only_where_it_beats_all_others() -> None:
    """By `ef` the third is best, by `view` none: two say the same of every clip."""
    results = [
        *(judged(EF, name, e, i) for i, (name, e) in enumerate(zip("abc", (9, 6, 1), strict=True))),
        *(judged(VIEW, name, error) for name, error in zip("abc", (0.1, 0.1, 0.6), strict=True)),
    ]
    assert compared(results).best == [(3, 1)]
    assert clearly_best(results[:3]) is results[2]
    close = [results[0], results[1], judged(EF, "c", 5.5, 9)]
    assert clearly_best(close) is None
    assert compared([*close, *results[3:]]).best == []


def test_a_score_that_is_not_there_is_a_dash_and_one_that_is_not_a_number_wins_nothing() -> None:
    results = [judged(EF, "a", 1.0), judged(EF, "b", 9.0), judged(VIEW, "b", 0.1)]
    page = compared(results)
    assert page.rows[1][2] == "–" and page.rows[2][2] != "–"
    assert page.best == [(1, 1)]  # of the second task there is nothing to compare
    broken = replace(results[1], test={**results[1].test, "mae": float("nan")})
    assert clearly_best([results[0], broken]) is None


@pytest.mark.parametrize(("num_tasks", "rows"), [(1, 1), (3, 1), (5, 2)])
def test_panels_wrap_to_rows_of_three(num_tasks: int, rows: int) -> None:
    names = [f"encoder number {i}" for i in range(5)]
    page = compared([judged(t, n, 3.0) for t in TASKS[-num_tasks:] for n in (*names, BASELINE)])
    (image,) = page.images()
    assert image.shape[1] == min(num_tasks, 3) * 440
    assert image.shape[0] == pytest.approx(rows * (0.9 + 0.32 * 6) * 110, abs=2)
    assert len(page.rows) == 7 and len(page.rows[0]) == num_tasks + 1


def test_a_point_stands_at_its_score_in_the_colour_of_its_encoder() -> None:
    """The second encoder errs more: its colour is right of the first one's, and below it."""
    results = [judged(EF, name, error) for name, error in (("a", 2.0), ("b", 8.0))]
    (image,) = compared(results).images()
    centres = []
    for colour in PALETTE[:2]:
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        y, x = np.nonzero((image == rgb).all(axis=-1))
        assert len(x) > 50
        centres.append((x.mean(), y.mean()))
    assert centres[1][0] > centres[0][0] + 50 and centres[1][1] > centres[0][1] + 15
