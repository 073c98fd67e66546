"""Does the advantage of latent prediction grow with noise? A benchmark per level of every knob.

The theory says that pixels are worth less to learn from, the more of them is unpredictable. The
phantom has three knobs of unpredictability; patients, hearts and views are the same at every level.
What is read here are the files that benchmarks leave.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from echojepa.benchmark.outcome import JSON
from echojepa.benchmark.tables import ABSENT, Cell, Table
from echojepa.config import Strict
from echojepa.errors import StorageError
from echojepa.probes.intervals import Interval
from echojepa.probes.metrics import HEADLINE

Knob = Literal["speckle_contrast", "decorrelation_seconds", "electronic_noise"]
_LESS_IS_NOISIER = ("decorrelation_seconds",)
"""Speckle that keeps its pattern for long can be predicted from frame to frame."""


class NoiseConfig(Strict):
    """Curves over noise."""

    command = "noise-curves"

    out: str
    """Folder of all levels and of the page. The same command goes on where it was interrupted."""
    benchmark: str
    """Benchmark config of every level, relative to this working directory; it has a phantom."""
    settings: tuple[str, ...] = ()
    """key=value settings of it, for all levels."""
    knobs: dict[Knob, tuple[float, ...]] = Field(min_length=1)
    """By setting of the phantom, its levels. All other knobs stay where the phantom has them, and
    what is the same at several places is computed once."""

    @model_validator(mode="after")
    def _levels(self) -> NoiseConfig:
        for knob, levels in self.knobs.items():
            if len(levels) < 2 or len(set(levels)) < len(levels):
                raise ValueError(f"{knob} needs two levels or more, each once")
        return self

    def ordered(self, knob: Knob) -> list[float]:
        """Levels of a knob, the noisiest last."""
        return sorted(self.knobs[knob], reverse=knob in _LESS_IS_NOISIER)


class Point(NamedTuple):
    """What an arm, or the difference of two, is worth at one level."""

    knob: Knob
    level: float
    task: str
    metric: str
    arm: str
    minus: str | None
    value: float
    interval: Interval


def read_points(levels: Mapping[tuple[Knob, float], Path]) -> list[Point]:
    """The means over seeds on test patients, of every task's headline metric.

    Args:
        levels: by knob and level, the folder of a finished benchmark.

    Raises:
        StorageError: a folder has none.
    """
    found = []
    for (knob, level), folder in levels.items():
        file = folder / JSON
        if not file.is_file():
            raise StorageError(
                "no finished benchmark", "Start the same command again.", str(folder)
            )
        for line in json.loads(file.read_text())["scores"]:
            usual = line["condition"] == "test" and not line["detail"] and line["seed"] is None
            if usual and line["metric"] in HEADLINE.values():
                interval = Interval(line["low"], line["high"])
                names = (line["task"], line["metric"], line["arm"], line["minus"])
                found.append(Point(knob, level, *names, line["value"], interval))
    return found


def level_table(
    config: NoiseConfig, points: Sequence[Point], knob: Knob, task: str, opponents: Sequence[str]
) -> Table:
    """Rows are levels, columns arms and what they have more than each opponent."""
    here = {(p.level, p.arm, p.minus): p for p in points if (p.knob, p.task) == (knob, task)}
    arms = list(dict.fromkeys(arm for _, arm, minus in here if minus is None))
    pairs = [(arm, minus) for minus in opponents for arm in arms if arm != minus]
    pairs = [pair for pair in pairs if any((level, *pair) in here for level in config.knobs[knob])]
    rows = []
    for level in config.ordered(knob):
        scores = [_cell(here.get((level, arm, None))) for arm in arms]
        apart = [_cell(here.get((level, *pair)), sign=True) for pair in pairs]
        rows.append([Cell(f"{level:g}"), *scores, *apart])
    metric = next(iter(here.values())).metric
    heads = [knob, *arms, *(f"{arm} minus {minus}" for arm, minus in pairs)]
    note = (
        f"{metric}, mean over seeds on test patients; in brackets the 95% interval over patients. "
        "The noisiest level stands last. Bold: a difference whose interval holds no zero."
    )
    return Table(f"{task} over {knob}", note, [Cell(head) for head in heads], rows)


def verdict(config: NoiseConfig, points: Sequence[Point], knob: Knob, pair: tuple[str, str]) -> str:
    """Whether a difference between two arms changes from the least to the most noise, in words.

    It does if the intervals at both ends do not overlap: a cautious test, for the same patients are
    behind both.
    """
    said = []
    ends = [config.ordered(knob)[place] for place in (0, -1)]
    for task in dict.fromkeys(p.task for p in points):
        found = [
            next((p for p in points if (p.knob, p.level, p.task, p.arm, p.minus) == key), None)
            for key in ((knob, end, task, *pair) for end in ends)
        ]
        if None in found:
            continue
        calm, noisy = (p for p in found if p is not None)
        apart = calm.interval.high < noisy.interval.low or noisy.interval.high < calm.interval.low
        change = "changes" if apart else "is not shown to change"
        said.append(
            f"{task}: {pair[0]} minus {pair[1]} {change} with {knob} ({calm.metric} "
            f"{calm.value:+.3f} at {ends[0]:g}, {noisy.value:+.3f} at {ends[1]:g})."
        )
    return " ".join(said)


def _cell(point: Point | None, *, sign: bool = False) -> Cell:
    if point is None:
        return Cell(ABSENT)
    form = "+.3f" if sign else ".3f"
    low, high = point.interval
    strong = sign and point.interval.excludes_zero
    return Cell(f"{point.value:{form}}", f"[{low:{form}}, {high:{form}}]", strong)
