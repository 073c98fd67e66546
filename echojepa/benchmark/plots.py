"""Plots of a benchmark: scores with their intervals, and how the runs went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from echojepa.benchmark.board import Board
from echojepa.benchmark.matching import PlannedArm
from echojepa.benchmark.measures import Measure
from echojepa.benchmark.tables import Runs
from echojepa.pictures.looks import Look
from echojepa.pictures.plots import PER_ROW, image, name_panel, panels


def bars(board: Board, measures: Sequence[Measure], look_of: Mapping[str, Look]) -> str:
    """Mean and interval of all arms, and every seed as a dot, a panel per measure."""
    names = list(board.arms)
    figure, places = panels(len(measures), 0.9 + 0.34 * len(names))
    for index, (measure, (axes,)) in enumerate(zip(measures, places, strict=True)):
        for y, name in enumerate(names):
            score, look = board.score(name, measure), look_of[name]
            if score is None:
                continue
            low, high = score.interval
            axes.barh(y, score.value, height=0.62, color=look.colour, alpha=0.35)
            axes.plot([low, high], [y, y], color=look.colour, linewidth=2)
            seeds = list(score.by_seed.values())
            axes.scatter(seeds, [y] * len(seeds), s=12, color=look.colour, marker=look.marker)
        is_left = index % PER_ROW == 0
        axes.set_yticks(np.arange(len(names)), names if is_left else [""] * len(names))
        axes.set_ylim(len(names) - 0.5, -0.5)  # the first arm on top
        better = "lower" if measure.lower_is_better else "higher"
        axes.set_xlabel(f"{better} is better")
        axes.locator_params(axis="x", nbins=5)
        name_panel(axes, str(measure))
        axes.grid(axis="x", alpha=0.25)
    return image(figure, "scores of all arms")


def run_curves(
    plan: Sequence[PlannedArm], runs: Runs, ending: str, look_of: Mapping[str, Look]
) -> str:
    """A logged metric of all runs over what they have spent, every seed a line.

    Empty, if no run has logged it. The runs of an arm with a target begin where its target's end.

    Args:
        ending: of the metric's name.
    """
    figure, ((axes,),) = panels(1, 3.4)
    named: set[str] = set()
    for arm in plan:
        for (name, _), record in runs.items():
            points = record.curve(ending) if name == arm.name else []
            if not points:
                continue
            steps, values = np.transpose(points)
            before = 0.0 if arm.target is None else arm.target.total("flops")
            look = look_of[name]
            x = (before + steps * arm.step.flops) / 1e12
            label = None if name in named else name
            (line,) = axes.plot(x, values, color=look.colour, label=label, linewidth=1.3)
            line.set(marker=look.marker, markersize=3, dashes=look.dashes or (1, 0))
            named.add(name)
    if not named:
        return ""
    axes.set(xlabel="TFLOP of training steps", ylabel=ending.replace("_", " "))
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    return image(figure, f"{ending.replace('_', ' ')} of all runs")
