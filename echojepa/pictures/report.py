"""One self-contained HTML page: what the encoder is worth, beside chance and random weights."""

from __future__ import annotations

import html
import io
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from echojepa.data.problem import Problem
from echojepa.page import page, picture, section
from echojepa.probes.fitting import ProbeResult
from echojepa.probes.intervals import differences
from echojepa.probes.metrics import HEADLINE, SHOWN, confusion
from echojepa.probes.predictions import Predictions
from echojepa.probes.suites.label_efficiency import CurvePoint

_BLUE, _ORANGE, _GREY = "#1f5fa8", "#d9822b", "#8a8f98"
_COLOURS = {"pretrained": _BLUE, "random weights": _ORANGE, "predict mean": _GREY}


@dataclass(frozen=True)
class Report:
    """What goes onto the page."""

    results: list[ProbeResult]
    curves: list[dict[str, Any]]
    """Logged metrics of the run, one dict per logged step; may be empty."""
    pictures: list[NDArray[np.uint8]]
    """Clips with their masks, [H, W, 3] each."""
    facts: dict[str, str]
    unread: list[Problem]
    """Why clips could not be read."""
    label_curve: list[CurvePoint] = field(default_factory=list)
    """What probes on few labels are worth; may be empty."""


def write_report(report: Report, path: Path) -> Path:
    """Write the page; returns its path."""
    tasks = list(dict.fromkeys(r.task.name for r in report.results))
    sections = [_task_section([r for r in report.results if r.task.name == task]) for task in tasks]
    if report.label_curve:
        sections.append(_labels_section(report))
    if report.curves:
        sections.append(_curves_section(report.curves))
    if report.pictures:
        sections.append(_pictures_section(report.pictures))
    facts = " &middot; ".join(
        f"{html.escape(k)} <code>{html.escape(v)}</code>" for k, v in report.facts.items()
    )
    lead = (
        "<p class='note'>Linear probes on frozen features. Regularisation is chosen on validation "
        "patients; test patients are read once. Research use only.</p>"
        f"<p class='note'>{facts}</p>{_unread_note(report.unread)}"
    )
    text = page("What the frozen encoder is worth", lead, "".join(sections))
    path.write_text(text, encoding="utf-8")
    return path


def _unread_note(unread: list[Problem]) -> str:
    if not unread:
        return ""
    kinds = ", ".join(sorted({problem.kind for problem in unread}))
    return f"<p class='note'>{len(unread)} clip(s) could not be read ({html.escape(kinds)}).</p>"


def _task_section(results: list[ProbeResult]) -> str:
    """Table and picture of one task."""
    task = results[0].task
    regression = task.kind == "regression"
    names = (*SHOWN[task.kind], *(f"auroc_below_{cutoff:g}" for cutoff in task.cutoffs))
    heads = "".join(f"<th>{n.replace('_', ' ')}</th>" for n in names)
    best = _clearly_best(results, HEADLINE[task.kind])
    rows = "".join(
        f"<tr{' class=best' if r is best else ''}><td>{html.escape(r.features)}</td>"
        + "".join(f"<td>{_with_interval(r, n)}</td>" for n in names)
        + "</tr>"
        for r in results
    )
    shown = results[0].predictions
    unit = f", in {html.escape(task.unit)}" if task.unit else ""
    figure = _scatter(results) if regression else _confusions(results)
    return section(
        task.name,
        f"<p class='note'>{len(shown.ids)} test {'studies' if task.by_study else 'clips'} of "
        f"{len(np.unique(shown.patients))} patients{unit}; in brackets the 95% interval over "
        "patients. Bold: better than every other line, and no difference's interval holds "
        f"zero.{_unknown_note(shown)}</p>"
        f"<table><tr><th>features</th>{heads}</tr>{rows}</table>{_groups_table(results)}{figure}",
    )


def _unknown_note(predictions: Predictions) -> str:
    """Classes that training lacks are wrong whatever is said: they are named."""
    unknown = ", ".join(map(html.escape, predictions.unknown_classes))
    return f" Not in training, and counted as wrong: {unknown}." if unknown else ""


def _with_interval(result: ProbeResult, name: str) -> str:
    """A score and its interval."""
    low, high = result.intervals[name]
    return f"{result.test[name]:.3f} <small>[{low:.3f}, {high:.3f}]</small>"


def _clearly_best(results: list[ProbeResult], name: str) -> ProbeResult | None:
    """The result that beats all others by differences whose intervals exclude zero, if one does."""
    sign = -1.0 if name == "mae" else 1.0
    if not all(np.isfinite(r.test[name]) for r in results):
        return None
    best = max(results, key=lambda r: sign * r.test[name])
    others = [r for r in results if r is not best]
    clear = (differences(best.drawn, other.drawn)[name].excludes_zero for other in others)
    return best if all(clear) else None


def _scatter(results: list[ProbeResult]) -> str:
    """Predicted against true values of every feature set; below, Bland and Altman's plot."""
    shown = [r for r in results if r.chosen is not None]
    every = np.concatenate([x for r in shown for x in (r.predictions.truth, r.predictions.output)])
    low, high = float(every.min()) - 3, float(every.max()) + 3
    figure = Figure(figsize=(4.4 * len(shown), 7.4), layout="constrained")
    for index, result in enumerate(shown):
        said, unit = result.predictions, result.task.unit
        look: dict[str, Any] = {
            "s": 16,
            "alpha": 0.7,
            "color": _COLOURS.get(result.features, _BLUE),
        }
        axes = figure.add_subplot(2, len(shown), index + 1)
        axes.plot([low, high], [low, high], color=_GREY, linewidth=1)
        axes.scatter(said.truth, said.predicted, **look)
        axes.set(
            xlim=(low, high),
            ylim=(low, high),
            aspect="equal",
            title=f"{result.features}: R² {result.test['r2']:.2f}",
            xlabel=f"true {unit}",
            ylabel=f"predicted {unit}",
        )
        axes = figure.add_subplot(2, len(shown), len(shown) + index + 1)
        axes.scatter((said.truth + said.output) / 2, said.output - said.truth, **look)
        for name in ("bias", "agreement_low", "agreement_high"):
            axes.axhline(result.test[name], color=_GREY, linewidth=1, dashes=(4, 3))
        axes.set(xlabel=f"mean of true and predicted {unit}", ylabel=f"predicted - true {unit}")
    return _image(figure, f"predicted against true {results[0].task.name}")


def _groups_table(results: list[ProbeResult]) -> str:
    """The headline score of every group of columns that tell several apart."""
    metric = HEADLINE[results[0].task.kind]
    found = {r.features: r.by_group for r in results}
    lines = next(iter(found.values()))
    values = Counter(line["column"] for line in lines)
    told = [i for i, line in enumerate(lines) if values[line["column"]] > 1]
    if not told:
        return ""
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in found)
    rows = ""
    for i in told:
        line, cells = lines[i], ""
        for groups in found.values():
            low, high = groups[i]["test_intervals"][metric]
            score = groups[i]["test"][metric]
            cells += f"<td>{score:.3f} <small>[{low:.3f}, {high:.3f}]</small></td>"
        name = html.escape(f"{line['column']}: {line['value']}")
        rows += f"<tr><td>{name}</td><td>{line['num_test_patients']}</td>{cells}</tr>"
    return (
        f"<details><summary>{metric.replace('_', ' ')} by group</summary><table>"
        f"<tr><th>group</th><th>test patients</th>{heads}</tr>{rows}</table></details>"
    )


def _confusions(results: list[ProbeResult]) -> str:
    """Confusion matrices of every feature set."""
    shown = [r for r in results if r.chosen is not None]
    figure = Figure(figsize=(4.4 * len(shown), 3.8), layout="constrained")
    for index, result in enumerate(shown):
        said = result.predictions
        names = np.union1d(said.classes, said.truth)  # every class that occurs
        counts = confusion(said.truth, said.predicted, names)
        axes = figure.add_subplot(1, len(shown), index + 1)
        axes.imshow(
            counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1
        )
        ticks = range(len(names))
        axes.set_xticks(ticks, names)
        axes.set_yticks(ticks, names)
        axes.set(
            title=f"{result.features}: accuracy {result.test['balanced_accuracy']:.2f} by class",
            xlabel="predicted",
            ylabel="true",
        )
        for (row, column), count in np.ndenumerate(counts):
            dark = count > counts[row].sum() / 2
            axes.text(
                column,
                row,
                str(count),
                ha="center",
                va="center",
                color="white" if dark else "black",
            )
    return _image(figure, f"confusion of {results[0].task.name}")


def _labels_section(report: Report) -> str:
    """The headline score of every task over the number of labelled patients."""
    tasks = {r.task.name: r.task for r in report.results}
    figure = Figure(figsize=(4.6 * len(tasks), 3.6), layout="constrained")
    for index, (name, task) in enumerate(tasks.items()):
        axes = figure.add_subplot(1, len(tasks), index + 1)
        metric = HEADLINE[task.kind]
        points = [point for point in report.label_curve if point.task == name]
        for features in dict.fromkeys(point.features for point in points):
            line = [point for point in points if point.features == features]
            x = [point.num_patients for point in line]
            colour = _COLOURS.get(features, _BLUE)
            axes.plot(x, [p.test[metric] for p in line], marker="o", color=colour, label=features)
            low, high = np.transpose([point.test_intervals[metric] for point in line])
            axes.fill_between(x, low, high, color=colour, alpha=0.15)
        axes.set(xscale="log", title=name, xlabel="labelled patients", ylabel=metric)
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8)
    note = (
        "Means over three draws of training patients; bands are 95% intervals over test patients."
    )
    return section("Few labels", f"<p class='note'>{note}</p>{_image(figure, 'few labels')}")


def _curves_section(curves: list[dict[str, Any]]) -> str:
    """Loss, spread of the features, schedule and online probe over the steps."""
    last = {int(line["step"]): line for line in curves}  # steps that a restart redid count once
    steps = sorted(last)
    probes = [n for n in last[steps[-1]] if n.startswith("probe/") and n.endswith(("r2", "auroc"))]
    panels = {
        "loss": [n for n in last[steps[0]] if n.startswith("loss")],
        "effective rank of the target": ["effective_rank"],
        "learning rate": ["lr"],
        "online probe (validation)": probes,
    }
    panels = {title: names for title, names in panels.items() if names}
    figure = Figure(figsize=(9.2, 3.0 * ((len(panels) + 1) // 2)), layout="constrained")
    for index, (title, names) in enumerate(panels.items()):
        axes = figure.add_subplot((len(panels) + 1) // 2, 2, index + 1)
        for name in names:
            points = [(s, last[s][name]) for s in steps if name in last[s]]
            axes.plot(*zip(*points, strict=True), label=name.removeprefix("probe/"), linewidth=1.4)
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.25)
        if len(names) > 1:
            axes.legend(fontsize=8)
    return section("Pretraining", _image(figure, "training curves"))


def _pictures_section(pictures: list[NDArray[np.uint8]]) -> str:
    """Clips and their masks, scaled without smoothing."""
    images = []
    for array in pictures:
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "png")
        images.append(picture(buffer.getvalue(), "clip and masks", "pixels"))
    return section(
        "Clips and masks",
        "<p class='note'>Top row: four frames of the clip. Below, one row per mask generator: the "
        "encoder sees what is grey, the predictor must say what the target makes of what is blue."
        f"</p><div class='grid'>{''.join(images)}</div>",
    )


def _image(figure: Figure, label: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return picture(buffer.getvalue(), label)
