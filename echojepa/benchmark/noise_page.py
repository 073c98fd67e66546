"""The page of noise curves: tables, and every arm's error over every knob."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from echojepa.benchmark.noise import Knob, NoiseConfig, Point, level_table, verdict
from echojepa.benchmark.tables import Table
from echojepa.durable import write_text
from echojepa.page import page, section
from echojepa.pictures.looks import Look, looks
from echojepa.pictures.plots import image, name_panel, panels

_LEAD = (
    "The same hearts, filmed with more and less unpredictable noise; at every level all arms are "
    "pretrained and judged anew. Lines are means over seeds, bands their 95% intervals over test "
    "patients; the noisiest level stands on the right. Research use only."
)


@dataclass(frozen=True)
class NoiseCurves:
    """All that was found."""

    config: NoiseConfig
    points: Sequence[Point]
    opponents: Sequence[str]
    """Arms that the others are compared with, the reference first."""
    failed: Mapping[str, str]
    """By level, why it has no result, or not all of it."""

    @cached_property
    def tasks(self) -> list[str]:
        """By name, in their order."""
        return list(dict.fromkeys(point.task for point in self.points))

    @cached_property
    def tables(self) -> list[Table]:
        """One per knob and task."""
        return [
            level_table(self.config, self.points, knob, task, self.opponents)
            for knob in self.knobs
            for task in self.tasks
        ]

    @property
    def knobs(self) -> list[Knob]:
        """Those with a result."""
        return [k for k in self.config.knobs if any(p.knob == k for p in self.points)]

    @property
    def verdicts(self) -> list[str]:
        """What can be said of the reference against every other opponent."""
        reference, *others = self.opponents
        said = [
            verdict(self.config, self.points, knob, (reference, other))
            for knob in self.knobs
            for other in others
        ]
        return [text for text in said if text]


def write_curves(curves: NoiseCurves, out: Path) -> None:
    """Write noise.md and noise.html. Raises `OSError`."""
    said = "\n".join(f"- {text}" for text in curves.verdicts)
    failed = "".join(f"\nNo result of {what}: {why}\n" for what, why in curves.failed.items())
    tables = "\n".join(table.as_markdown() for table in curves.tables)
    write_text(out / "noise.md", f"# Over noise\n\n{_LEAD}\n\n{said}\n{failed}\n{tables}")
    lead = f"<p class='note'>{_LEAD}</p>" + "".join(
        f"<p class='failed'>No result of {html.escape(what)}: {html.escape(why)}</p>"
        for what, why in curves.failed.items()
    )
    lead += "".join(f"<p class='note'>{html.escape(text)}</p>" for text in curves.verdicts)
    arms = dict.fromkeys(p.arm for p in curves.points if p.minus is None)
    body = section("Curves", plot_curves(curves, looks(arms)))
    body += "".join(section(table.title, table.as_html()) for table in curves.tables)
    write_text(out / "noise.html", page("Does the advantage grow with noise?", lead, body))


def plot_curves(curves: NoiseCurves, look_of: Mapping[str, Look]) -> str:
    """A panel per task and knob; levels stand at equal distances, the noisiest on the right."""
    shown = [(task, knob) for task in curves.tasks for knob in curves.knobs]
    figure, places = panels(len(shown), 2.7)
    for (task, knob), (axes,) in zip(shown, places, strict=True):
        here = [p for p in curves.points if (p.task, p.knob, p.minus) == (task, knob, None)]
        levels = curves.config.ordered(knob)
        for arm, look in look_of.items():
            line = sorted((p for p in here if p.arm == arm), key=lambda p: levels.index(p.level))
            x = [levels.index(p.level) for p in line]
            lows, highs = ([p.interval[end] for p in line] for end in (0, 1))
            axes.fill_between(x, lows, highs, color=look.colour, alpha=0.15, linewidth=0)
            (drawn,) = axes.plot(x, [p.value for p in line], color=look.colour, label=arm)
            drawn.set(marker=look.marker, markersize=4, dashes=look.dashes or (1, 0))
        axes.set_xticks(range(len(levels)), [f"{level:g}" for level in levels])
        axes.set(xlabel=knob.replace("_", " "), ylabel=here[0].metric.replace("_", " "))
        name_panel(axes, task)
        axes.grid(alpha=0.25)
    places[0][0].legend(fontsize=8)
    return image(figure, "error of all arms over noise")
