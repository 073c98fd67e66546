"""Plots stay readable for any number of encoders: rows of three, equal scales, all in colour."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from support.judged import judged
from support.pages import Page

from echojepa.pictures.looks import PALETTE, looks
from echojepa.pictures.plots import confusions, label_curves, name_panel, panels, scatter
from echojepa.probes.fitting import BASELINE, ProbeResult
from echojepa.probes.intervals import Interval
from echojepa.probes.suites.label_efficiency import CurvePoint
from echojepa.probes.tasks import Task

EF = Task(name="ef", label="lvef", kind="regression", unit="%")
VIEW = Task(name="view", label="view", kind="classification")
NAMES = [f"encoder {i}" for i in range(5)]
LOOKS = looks([*NAMES, BASELINE])
Plot = Callable[[Sequence[ProbeResult]], str]


def drawn(html: str) -> np.ndarray:
    """The only picture of a piece of a page."""
    (image,) = Page(html).images()
    return image


@pytest.mark.parametrize("number", [1, 2, 3, 4, 7])
def test_panels_stand_in_rows_of_three_from_left_to_right(number: int) -> None:
    figure, found = panels(number, 2.0, stacked=2)
    figure.draw_without_rendering()
    rows = -(-number // 3)
    assert figure.get_size_inches().tolist() == [4.0 * min(number, 3), 4.0 * rows]
    places = [[axes.get_position() for axes in panel] for panel in found]
    assert len(places) == number
    for index, (above, below) in enumerate(places):
        assert above.y0 > below.y1 and above.x0 == pytest.approx(below.x0, abs=0.02)
        if index % 3:
            assert above.x0 > places[index - 1][0].x1
        if index >= 3:
            assert above.y1 < places[index - 3][1].y0


@pytest.mark.parametrize(
    ("plot", "task"), [(partial(scatter, look_of=LOOKS), EF), (confusions, VIEW)]
)
@pytest.mark.parametrize("number", [1, 3, 5])
def test_every_encoder_has_a_panel_and_the_baseline_none(
    plot: Plot, task: Task, number: int
) -> None:
    results = [judged(task, name, 0.2, i) for i, name in enumerate(NAMES[:number])]
    image = drawn(plot([*results, judged(task, BASELINE, 0.5)]))
    height = 2 * 407 if task is EF else 407
    assert image.shape[:2] == (height * -(-number // 3), 440 * min(number, 3))
    assert np.array_equal(image, drawn(plot(results)))


def test_every_encoder_is_drawn_in_its_own_colour() -> None:
    image = drawn(scatter([judged(EF, name, 4.0) for name in NAMES], LOOKS)).astype(int)
    for index in range(5):
        row, column = divmod(index, 3)
        panel = image[row * 814 : (row + 1) * 814, column * 440 : (column + 1) * 440]
        rgb = np.array([int(PALETTE[index][i : i + 2], 16) for i in (1, 3, 5)])
        mixed = 255 + 0.7 * (rgb - 255)  # see-through dots on white
        assert (np.abs(panel - mixed).sum(axis=-1) < 12).sum() > 200


def test_all_panels_of_a_scatter_have_one_scale() -> None:
    """One encoder that errs wildly makes the points of all others smaller, not larger."""
    good = judged(EF, NAMES[0], 1.0)
    alone = drawn(scatter([good], LOOKS))
    beside = drawn(scatter([good, judged(EF, NAMES[1], 90.0)], LOOKS))[:, :440]
    assert not np.array_equal(alone, beside)


def test_both_limits_of_agreement_are_in_view() -> None:
    """With errors of one sign, the upper limit lies above every error."""
    said = judged(EF, NAMES[0], 0.0)
    errors = np.where(np.arange(len(said.predictions.ids)) % 2, 9.0, 15.0)  # 12 +- 1.96 * 3
    biased = replace(said.predictions, output=said.predictions.truth + errors)
    image = drawn(scatter([replace(said, predictions=biased, test=biased.metrics())], LOOKS))
    grey = (image[407:].min(axis=-1) > 100) & (image[407:].max(axis=-1) < 240)
    number = grey.sum(axis=1)
    dashed = np.flatnonzero((number > 150) & (number < 300))  # the frame is longer
    assert 1 + (np.diff(dashed) > 3).sum() == 3


def test_the_shade_of_a_confusion_is_the_share_of_the_true_class() -> None:
    right, wrong = (drawn(confusions([judged(VIEW, NAMES[0], e)])) for e in (0.0, 1.0))
    dark = [(image.sum(axis=-1) < 250)[:, 150:330] for image in (right, wrong)]
    assert dark[0].sum() > 5000 and dark[1].sum() > 5000
    assert (dark[0] & dark[1]).mean() < 0.05  # one diagonal each


def test_tasks_without_points_have_no_panel() -> None:
    interval = {"mae": Interval(4.0, 6.0)}
    points = [
        CurvePoint("ef", name, share, round(share * 80), {"mae": 5.0}, interval, {})
        for name in NAMES[:2]
        for share in (0.1, 0.5, 1.0)
    ]
    assert drawn(label_curves([EF, VIEW], points, LOOKS)).shape[:2] == (374, 440)


def test_long_titles_stay_over_their_own_panel() -> None:
    figure, found = panels(3, 3.4)
    for (axes,) in found:
        name_panel(axes, "an encoder of a rather long name and size: balanced accuracy 0.82")
    figure.draw_without_rendering()
    spans = [axes.title.get_window_extent() for (axes,) in found]
    assert all(left.x1 < right.x0 for left, right in pairwise(spans))
