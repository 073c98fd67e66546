"""One self-contained HTML page: what encoders are worth, beside each other and beside chance."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echojepa.data.problem import Problem
from echojepa.page import page, picture, section
from echojepa.pictures.comparison import comparison_section
from echojepa.pictures.looks import Look, looks
from echojepa.pictures.masks import png_of
from echojepa.pictures.plots import confusions, label_curves, scatter, training_curves
from echojepa.pictures.severity import severity_section
from echojepa.pictures.tables import groups_table, task_table, transfer_table
from echojepa.probes.fitting import ProbeResult
from echojepa.probes.predictions import Predictions
from echojepa.probes.suites.label_efficiency import CurvePoint
from echojepa.probes.suites.robustness import SeverityPoint
from echojepa.probes.suites.transfer import Transfer


@dataclass(frozen=True)
class Report:
    """What goes onto the page. The parts that are HTML come from the functions they name."""

    results: list[ProbeResult]
    """Of any number of encoders, in the order in which the page shows them."""
    curves: list[dict[str, Any]]
    """Logged metrics of the run, one dict per logged step; may be empty."""
    pictures: list[NDArray[np.uint8]]
    """Clips with their masks, [H, W, 3] each."""
    facts: dict[str, str]
    unread: list[Problem]
    """Why clips could not be read."""
    label_curve: list[CurvePoint] = field(default_factory=list)
    """What probes on few labels are worth; may be empty."""
    severity: list[SeverityPoint] = field(default_factory=list)
    """What corrupted clips cost; may be empty."""
    transfers: list[Transfer] = field(default_factory=list)
    """What probes are worth on other people's patients; may be empty."""
    reconstruction: bytes | None = None
    """Clips as the pretrained network redraws them, PNG, if it learnt from pixels."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """By what it was, why there is no result."""
    umap: str = ""
    """HTML, one section per encoder: `umap.umap_section`."""
    films: str = ""
    """HTML, one section per task: `films.best_and_worst_section`."""
    attention: str = ""
    """HTML, one section per encoder: `attention_films.attention_section`."""


def write_report(report: Report, path: Path) -> Path:
    """Write the page; returns its path."""
    results = report.results
    look_of = looks(result.features for result in results)
    tasks = {result.task.name: result.task for result in results}
    sections = [comparison_section(results, look_of)] if results else []
    sections += [
        _task_section([r for r in results if r.task.name == task], look_of) for task in tasks
    ]
    if report.label_curve:
        note = (
            "Means over three draws of training patients; bands are 95% intervals over test "
            "patients."
        )
        curves = label_curves(list(tasks.values()), report.label_curve, look_of)
        sections.append(section("Few labels", f"<p class='note'>{note}</p>{curves}"))
    if report.severity:
        sections.append(severity_section(report.severity, list(tasks.values()), look_of))
    if report.transfers:
        sections.append(section("Other patients", transfer_table(report.transfers)))
    sections += [report.umap, report.films, report.attention]
    if report.curves:
        sections.append(section("Pretraining", training_curves(report.curves)))
    if report.pictures:
        sections.append(_pictures_section(report.pictures))
    if report.reconstruction is not None:
        sections.append(_reconstruction_section(report.reconstruction))
    text = page("What the frozen encoders are worth", _lead(report), "".join(sections))
    path.write_text(text, encoding="utf-8")
    return path


def _lead(report: Report) -> str:
    """What stands above all sections."""
    facts = " &middot; ".join(
        f"{html.escape(k)} <code>{html.escape(v)}</code>" for k, v in report.facts.items()
    )
    return (
        "<p class='note'>Probes on frozen features. Their settings are chosen on validation "
        "patients; test patients are read once. Research use only.</p>"
        f"<p class='note'>{facts}</p>{_unread_note(report.unread)}{_failed_note(report.failed)}"
    )


def _failed_note(failed: Mapping[str, str]) -> str:
    return "".join(
        f"<p class='failed'>No result of {html.escape(what)}: {html.escape(why)}</p>"
        for what, why in failed.items()
    )


def _unread_note(unread: list[Problem]) -> str:
    if not unread:
        return ""
    kinds = ", ".join(sorted({problem.kind for problem in unread}))
    return f"<p class='note'>{len(unread)} clip(s) could not be read ({html.escape(kinds)}).</p>"


def _task_section(results: Sequence[ProbeResult], look_of: Mapping[str, Look]) -> str:
    """Table and picture of one task."""
    task = results[0].task
    shown = results[0].predictions
    unit = f", in {html.escape(task.unit)}" if task.unit else ""
    regression = task.kind == "regression"
    figure = scatter(results, look_of) if regression else confusions(results)
    return section(
        task.name,
        f"<p class='note'>{len(shown.ids)} test {'studies' if task.by_study else 'clips'} of "
        f"{len(np.unique(shown.patients))} patients{unit}; in brackets the 95% interval over "
        "patients. Bold: better than every other line, and no difference's interval holds "
        f"zero.{_unknown_note(shown)}</p>"
        f"<div class='wide'>{task_table(results)}{groups_table(results)}</div>{figure}",
    )


def _unknown_note(predictions: Predictions) -> str:
    """Classes that training lacks are wrong whatever is said: they are named."""
    unknown = ", ".join(map(html.escape, predictions.unknown_classes))
    return f" Not in training, and counted as wrong: {unknown}." if unknown else ""


def _pictures_section(pictures: Sequence[NDArray[np.uint8]]) -> str:
    """Clips and their masks, scaled without smoothing."""
    images = [picture(png_of(array), "clip and masks", "pixels") for array in pictures]
    return section(
        "Clips and masks",
        "<p class='note'>Top row: four frames of the clip. Below, one row per mask generator: the "
        "encoder sees what is grey, and what is blue must be predicted.</p>"
        f"<div class='grid'>{''.join(images)}</div>",
    )


def _reconstruction_section(png: bytes) -> str:
    """What the network makes of the pixels that it does not see."""
    return section(
        "Pixels, redrawn",
        "<p class='note'>Clips of the last pictures that pretraining took: four frames, what was "
        "hidden (blue), and the clip with the hidden part redrawn. Redrawn tubelets have the mean "
        "and contrast of the true ones, where the network learns pixels without them.</p>"
        f"<div class='wide'>{picture(png, 'clips, masks and reconstructions', 'pixels')}</div>",
    )
