"""Plots of a report. Panels stand in rows of three, however many encoders or tasks there are."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from echojepa.page import picture
from echojepa.pictures.looks import GREY, Look
from echojepa.probes.fitting import ProbeResult
from echojepa.probes.intervals import Interval
from echojepa.probes.metrics import HEADLINE, confusion
from echojepa.probes.suites.label_efficiency import CurvePoint
from echojepa.probes.tasks import Task

PER_ROW = 3
_WIDTH = 4.0
"""Inches of a panel: three of them fill the page, and are scaled down to it."""
_FEW_CLASSES = 5
_TITLE_WIDTH = 36


class Scored(Protocol):
    """A point of a line."""

    @property
    def test(self) -> Mapping[str, float]:
        """Scores by metric."""

    @property
    def test_intervals(self) -> Mapping[str, Interval]:
        """Their 95% intervals."""


def panels(number: int, height: float, stacked: int = 1) -> tuple[Figure, list[list[Axes]]]:
    """A figure of so many panels in rows of three, all of one size.

    Args:
        height: of a panel, inches.
        stacked: so many plots stand one below the other in every panel.

    Returns:
        The figure, and the plots of every panel from top to bottom.
    """
    columns = min(number, PER_ROW)
    rows = -(-number // columns)
    size = (_WIDTH * columns, height * stacked * rows)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.08))
    found = []
    for index in range(number):
        row, column = divmod(index, columns)
        places = [(row * stacked + s) * columns + column + 1 for s in range(stacked)]
        found.append([figure.add_subplot(rows * stacked, columns, place) for place in places])
    return figure, found


def name_panel(axes: Axes, title: str) -> None:
    """Put a title over a panel, in lines that are no longer than the panel is wide."""
    axes.set_title(textwrap.fill(title, _TITLE_WIDTH), fontsize=11)


def image(figure: Figure, label: str) -> str:
    """A figure as an element of a page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return picture(buffer.getvalue(), label)


def band(
    axes: Axes,
    x: Sequence[float],
    points: Sequence[Scored],
    metric: str,
    shown: tuple[str, Look],
) -> None:
    """A line through the scores of points, and a band of their intervals.

    Args:
        x: of every point.
        shown: name and look of the line.
    """
    name, look = shown
    (line,) = axes.plot(x, [p.test[metric] for p in points], label=name, color=look.colour)
    line.set(marker=look.marker, markersize=5, dashes=look.dashes or (1, 0))
    low, high = np.transpose([p.test_intervals[metric] for p in points])
    axes.fill_between(x, low, high, color=look.colour, alpha=0.15, linewidth=0)


def scatter(results: Sequence[ProbeResult], look_of: Mapping[str, Look]) -> str:
    """Predicted against true values of every encoder; below, Bland and Altman's plot."""
    shown = [r for r in results if r.chosen is not None]
    every = np.concatenate([x for r in shown for x in (r.predictions.truth, r.predictions.output)])
    margin = 0.05 * float(np.ptp(every)) or 1.0
    low, high = float(every.min()) - margin, float(every.max()) + margin
    errors = [r.predictions.output - r.predictions.truth for r in shown]
    limits = [r.test[name] for r in shown for name in ("agreement_low", "agreement_high")]
    furthest = 1.1 * float(np.abs(np.concatenate([*errors, limits])).max()) or 1.0
    figure, places = panels(len(shown), 3.7, stacked=2)
    for result, error, (above, below) in zip(shown, errors, places, strict=True):
        said, unit = result.predictions, result.task.unit
        look = look_of[result.features]
        dots: dict[str, Any] = {"s": 18, "alpha": 0.7, "color": look.colour, "linewidths": 0}
        above.plot([low, high], [low, high], color=GREY, linewidth=1)
        above.scatter(said.truth, said.output, marker=look.marker, **dots)
        above.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        name_panel(above, f"{result.features}: R² {result.test['r2']:.2f}")
        above.set(xlabel=f"true {unit}", ylabel=f"predicted {unit}")
        below.scatter((said.truth + said.output) / 2, error, marker=look.marker, **dots)
        for name in ("bias", "agreement_low", "agreement_high"):
            below.axhline(result.test[name], color=GREY, linewidth=1, dashes=(4, 3))
        below.set(xlim=(low, high), ylim=(-furthest, furthest))
        below.set(xlabel=f"mean of true and predicted {unit}", ylabel=f"predicted - true {unit}")
    return image(figure, f"predicted against true {results[0].task.name}")


def confusions(results: Sequence[ProbeResult]) -> str:
    """Confusion matrices of every encoder; colours are shares of the true class."""
    shown = [r for r in results if r.chosen is not None]
    figure, places = panels(len(shown), 3.7)
    for result, (axes,) in zip(shown, places, strict=True):
        said = result.predictions
        names = np.union1d(said.classes, said.truth)  # every class that occurs
        counts = confusion(said.truth, said.predicted, names)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        ticks, many = range(len(names)), len(names) > _FEW_CLASSES
        axes.set_xticks(ticks, names, rotation=90 if many else 0)
        axes.set_yticks(ticks, names)
        accuracy = result.test["balanced_accuracy"]
        name_panel(axes, f"{result.features}: balanced accuracy {accuracy:.2f}")
        axes.set(xlabel="predicted", ylabel="true")
        for (row, column), count in np.ndenumerate(counts):
            text = axes.text(column, row, str(count), ha="center", va="center")
            text.set_color("white" if shares[row, column] > 0.5 else "black")
            text.set_fontsize(7 if many else 10)
    return image(figure, f"confusion of {results[0].task.name}")


def label_curves(
    tasks: Sequence[Task], points: Sequence[CurvePoint], look_of: Mapping[str, Look]
) -> str:
    """The headline score of every task over the number of labelled patients."""
    drawn = [task for task in tasks if any(point.task == task.name for point in points)]
    figure, places = panels(len(drawn), 3.4)
    for task, (axes,) in zip(drawn, places, strict=True):
        metric = HEADLINE[task.kind]
        here = [point for point in points if point.task == task.name]
        for features in dict.fromkeys(point.features for point in here):
            line = [point for point in here if point.features == features]
            x = [float(point.num_patients) for point in line]
            band(axes, x, line, metric, (features, look_of[features]))
        numbers = sorted({point.num_patients for point in here})
        axes.set(xscale="log", xlabel="labelled patients", ylabel=metric.replace("_", " "))
        axes.set_xticks(numbers, list(map(str, numbers)))
        axes.minorticks_off()
        name_panel(axes, task.name)
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8)
    return image(figure, "few labels")


def training_curves(curves: Sequence[Mapping[str, Any]]) -> str:
    """Loss, spread of the features, schedule and online probe over the steps."""
    last = {int(line["step"]): line for line in curves}  # steps that a restart redid count once
    steps = sorted(last)
    probes = [n for n in last[steps[-1]] if n.startswith("probe/") and n.endswith(("r2", "auroc"))]
    shown = {
        "loss": [n for n in last[steps[0]] if n.startswith("loss")],
        "effective rank of the target": ["effective_rank"],
        "learning rate": ["lr"],
        "online probe (validation)": probes,
    }
    shown = {title: names for title, names in shown.items() if names}
    figure = Figure(figsize=(9.2, 3.0 * ((len(shown) + 1) // 2)), layout="constrained")
    for index, (title, names) in enumerate(shown.items()):
        axes = figure.add_subplot((len(shown) + 1) // 2, 2, index + 1)
        for name in names:
            points = [(s, last[s][name]) for s in steps if name in last[s]]
            axes.plot(*zip(*points, strict=True), label=name.removeprefix("probe/"), linewidth=1.4)
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.25)
        if len(names) > 1:
            axes.legend(fontsize=8)
    return image(figure, "training curves")
