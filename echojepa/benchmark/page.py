"""The page of a benchmark, which needs nothing else."""

from __future__ import annotations

import html
from pathlib import Path

from echojepa.benchmark.outcome import Outcome
from echojepa.benchmark.plots import bars, run_curves
from echojepa.benchmark.runs import PROBED
from echojepa.page import page, section
from echojepa.pictures.looks import looks
from echojepa.pictures.plots import label_curves
from echojepa.pictures.severity import severity_section

_BARS_NOTE = (
    "<p class='note'>Bars are means over seeds, lines their 95% intervals over patients, dots "
    "single seeds.</p>"
)


def write_page(outcome: Outcome, path: Path) -> Path:
    """Write it; returns its path. Raises `OSError`."""
    names = [*outcome.board.arms, *(arm.name for arm in outcome.plan)]
    look_of = looks(dict.fromkeys(names))
    measures = [measure for shown in outcome.columns.values() for measure in shown]
    scores = [section(table.title, table.as_html()) for table in outcome.tables]
    parts = [*scores[:-1]]
    if measures:
        plot = _BARS_NOTE + bars(outcome.board, measures, look_of)
        parts.insert(len(outcome.columns), section("Scores", plot))
    tasks = list(outcome.tasks.values())
    if outcome.label_curve:
        parts.append(section("Few labels", label_curves(tasks, outcome.label_curve, look_of)))
    if outcome.severity:
        parts.append(severity_section(outcome.severity, tasks, look_of))
    curves = {
        "Online probe": "".join(
            run_curves(outcome.plan, outcome.runs, f"_{name}", look_of) for name in PROBED.values()
        ),
        "Effective rank of the features": run_curves(
            outcome.plan, outcome.runs, "effective_rank", look_of
        ),
    }
    parts += [section(title, plot) for title, plot in curves.items() if plot]
    parts.append(scores[-1])
    text = page("Ways of pretraining at equal cost", _lead(outcome), "".join(parts))
    path.write_text(text, encoding="utf-8")
    return path


def _lead(outcome: Outcome) -> str:
    config = outcome.config
    facts = {
        "equal": config.match.replace("_", " "),
        "seeds": ", ".join(map(str, config.seeds)),
        **{name: str(value) for name, value in outcome.facts.items() if name != "versions"},
        **outcome.facts.get("versions", {}),
    }
    told = " &middot; ".join(
        f"{html.escape(name)} <code>{html.escape(value)}</code>" for name, value in facts.items()
    )
    orders = " ".join(outcome.order_notes)
    failed = "".join(
        f"<p class='failed'>No result of {html.escape(what)}: {html.escape(why)}</p>"
        for what, why in outcome.failed.items()
    )
    return (
        "<p class='note'>Encoders pretrained at equal cost, frozen, and judged by the same probes; "
        "test patients are read once, for all of them together. Research use only.</p>"
        f"<p class='note'>{told}</p><p class='note'>{html.escape(orders)}</p>{failed}"
    )
