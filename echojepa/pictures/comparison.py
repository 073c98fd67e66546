"""All encoders and all tasks at one glance: a table of headline scores, and a plot of the same."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np

from echojepa.page import section
from echojepa.pictures.looks import Look
from echojepa.pictures.plots import PER_ROW, image, name_panel, panels
from echojepa.pictures.tables import clearly_best, spelt, with_interval
from echojepa.probes.fitting import ProbeResult
from echojepa.probes.metrics import HEADLINE

ByTask = Mapping[str, Mapping[str, ProbeResult]]
"""Results by the name of the task, then by that of the features."""


def comparison_section(results: Sequence[ProbeResult], look_of: Mapping[str, Look]) -> str:
    """Rows are features and the baseline, columns are tasks.

    A cell is bold where its score beats every other one of the column and no paired difference's
    interval holds zero.

    Args:
        results: of any number of features and tasks; what is missing leaves an empty cell.
        look_of: the look of all features.
    """
    by_task: dict[str, dict[str, ProbeResult]] = {}
    for result in results:
        by_task.setdefault(result.task.name, {})[result.features] = result
    names = list(dict.fromkeys(result.features for result in results))
    note = (
        "<p class='note'>The headline score of every task on test patients; in brackets its 95% "
        "interval over patients. Bold: better than every other row, and no paired difference's "
        "interval holds zero.</p>"
    )
    table = f"<div class='wide'>{_table(by_task, names)}</div>"
    return section("Comparison", note + table + _forest(by_task, names, look_of))


def _table(by_task: ByTask, names: Sequence[str]) -> str:
    heads = ""
    best = []
    for task, found in by_task.items():
        first = next(iter(found.values()))
        metric = HEADLINE[first.task.kind]
        unit = f" ({html.escape(first.task.unit)})" if first.task.unit else ""
        arrow = "&darr;" if first.task.kind == "regression" else "&uarr;"
        heads += f"<th>{html.escape(task)}<small>{spelt(metric)}{unit} {arrow}</small></th>"
        best.append(clearly_best(list(found.values())))
    rows = ""
    for name in names:
        cells = ""
        for found, winner in zip(by_task.values(), best, strict=True):
            result = found.get(name)
            if result is None:
                cells += "<td>&ndash;</td>"
                continue
            metric = HEADLINE[result.task.kind]
            cell = with_interval(result.test[metric], result.intervals[metric])
            cells += f"<td{' class=best' if result is winner else ''}>{cell}</td>"
        rows += f"<tr><td>{html.escape(name)}</td>{cells}</tr>"
    return f"<table><tr><th>features</th>{heads}</tr>{rows}</table>"


def _forest(by_task: ByTask, names: Sequence[str], look_of: Mapping[str, Look]) -> str:
    """Score and interval of all features, one panel per task."""
    figure, places = panels(len(by_task), 0.9 + 0.32 * len(names))
    for index, (task, (axes,)) in enumerate(zip(by_task, places, strict=True)):
        found = by_task[task]
        first = next(iter(found.values())).task
        metric = HEADLINE[first.kind]
        for name, result in found.items():
            score, (low, high) = result.test[metric], result.intervals[metric]
            y, look = names.index(name), look_of[name]
            axes.plot([low, high], [y, y], color=look.colour, linewidth=2)
            axes.plot([score], [y], color=look.colour, marker=look.marker, markersize=7)
        is_left = index % PER_ROW == 0
        axes.set_yticks(np.arange(len(names)), names if is_left else [""] * len(names))
        axes.set_ylim(len(names) - 0.5, -0.5)  # the first row on top
        better = "lower" if first.kind == "regression" else "higher"
        unit = f", {first.unit}" if first.unit else ""
        name_panel(axes, task)
        axes.set_xlabel(f"{metric.replace('_', ' ')}{unit} ({better} is better)")
        axes.grid(axis="x", alpha=0.25)
    return image(figure, "scores of all features")
