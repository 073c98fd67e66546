"""What corrupted clips cost: scores over severity, and how much skill is lost."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from echojepa.page import section
from echojepa.pictures.looks import Look
from echojepa.pictures.plots import band, image, name_panel, panels
from echojepa.pictures.tables import with_interval
from echojepa.probes.metrics import HEADLINE
from echojepa.probes.suites.robustness import SeverityPoint
from echojepa.probes.tasks import Task


def severity_section(
    points: Sequence[SeverityPoint], tasks: Sequence[Task], look_of: Mapping[str, Look]
) -> str:
    """A panel per task and kind of corruption, a line per encoder; below, what every task loses.

    Args:
        points: at least one; of any number of encoders.
        tasks: those that the points are of, and perhaps others.
        look_of: the look of all encoders.
    """
    body = (
        "<p class='note'>Probes are fitted on clean clips, and judged on test clips that are "
        "corrupted; severity 0 is the clean clip. Bands are 95% intervals over patients.</p>"
        f"{_curves(points, tasks, look_of)}"
        "<p class='note'>Skill is 1 - error / error of predict-mean: how much of what can be known "
        "is known. Each cell is the skill lost against clean clips, with the 95% interval of the "
        "paired difference; then the growth of the error relative to the same encoder's on clean "
        "clips. The second number alone flatters an encoder that is bad on clean clips, as it has "
        "little to lose.</p>"
    )
    for task in tasks:
        here = [p for p in points if p.task == task.name]
        if here:
            body += f"<h3>{html.escape(task.name)}</h3><div class='wide'>{_table(here)}</div>"
    return section("Corrupted clips", body)


def _curves(
    points: Sequence[SeverityPoint], tasks: Sequence[Task], look_of: Mapping[str, Look]
) -> str:
    lines: dict[tuple[str, str], dict[str, list[SeverityPoint]]] = {}
    for task in tasks:
        for point in sorted((p for p in points if p.task == task.name), key=lambda p: p.severity):
            panel = lines.setdefault((task.name, point.kind), {})
            panel.setdefault(point.encoder, []).append(point)
    metrics = {task.name: HEADLINE[task.kind] for task in tasks}
    figure, places = panels(len(lines), 3.4)
    for ((task_name, kind), line_of), (axes,) in zip(lines.items(), places, strict=True):
        metric = metrics[task_name]
        for name, line in line_of.items():
            band(axes, [p.severity for p in line], line, metric, (name, look_of[name]))
        axes.set(xlabel=f"severity of {kind.replace('_', ' ')}", ylabel=metric.replace("_", " "))
        name_panel(axes, f"{task_name}: {kind}")
        axes.grid(alpha=0.25)
    named: dict[Any, Any] = {}
    for (axes,) in places:
        handles, texts = axes.get_legend_handles_labels()
        named |= dict(zip(texts, handles, strict=True))
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=4, fontsize=9)
    return image(figure, "scores over severity")


def _table(points: Sequence[SeverityPoint]) -> str:
    """Rows are corruptions, columns encoders; the last row is the mean over all corruptions."""
    found = {(p.kind, p.severity, p.encoder): p for p in points if p.severity > 0}
    names = list(dict.fromkeys(name for _, _, name in found))
    corruptions = sorted({(kind, severity) for kind, severity, _ in found})
    rows = ""
    for kind, severity in corruptions:
        shown = (found.get((kind, severity, name)) for name in names)
        cells = "".join(f"<td>{_cell(point) if point else '&ndash;'}</td>" for point in shown)
        rows += f"<tr><td>{html.escape(kind.replace('_', ' '))} {severity:g}</td>{cells}</tr>"
    means = "".join(
        f"<td>{_mean([p for p in found.values() if p.encoder == name], len(corruptions))}</td>"
        for name in names
    )
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    return (
        f"<table><tr><th>corruption</th>{heads}</tr>{rows}"
        f"<tr class=sum><td>mean</td>{means}</tr></table>"
    )


def _mean(points: Sequence[SeverityPoint], number: int) -> str:
    """Over all corruptions; of an encoder that lacks one there is none to compare."""
    if len(points) < number:
        return "&ndash;"
    lost = np.mean([p.skill_lost for p in points])
    growth = np.mean([p.relative_degradation for p in points])
    return f"{lost:.3f}<small>error {growth:+.1%}</small>"


def _cell(point: SeverityPoint) -> str:
    lost = with_interval(point.skill_lost, point.skill_lost_interval)
    return f"{lost}<small>error {point.relative_degradation:+.1%}</small>"
