"""Clips that play on a page, beside what was said of them."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from echojepa.data.video_file import mp4_bytes
from echojepa.page import film, section
from echojepa.probes.metrics import Floats
from echojepa.probes.predictions import Predictions


class Clip(NamedTuple):
    """Something that plays."""

    caption: str
    frames: NDArray[np.uint8]
    """RGB [T, H, W, 3]."""
    fps: float
    """At which it plays in real time."""


class Case(NamedTuple):
    """A clip, or one of a study, and what a probe says of it."""

    id: str
    """Of what is judged: the clip or the study."""
    truth: float | str
    """In raw units, or a class."""
    predicted: float | str
    frames: NDArray[np.uint8]
    """RGB [T, H, W, 3]."""
    fps: float
    """At which they play in real time."""


def playing(clip: Clip) -> str:
    """A clip as an element of a page."""
    return film(mp4_bytes(clip.frames, clip.fps), clip.caption)


def extremes(predictions: Predictions, number: int) -> tuple[list[str], list[str]]:
    """Ids of the best and of the worst predictions, both from the far end on.

    Regression goes by the distance to the truth, classification by the probability of the true
    class. No prediction is in both lists: of few predictions, each gets half of them at most.
    """
    errors = _errors(predictions)
    order = np.lexsort((predictions.ids, errors))  # ties by id: the same for every run
    number = min(number, len(order) // 2)
    ids = predictions.ids[order].tolist()
    return ids[:number], ids[::-1][:number]


def best_and_worst_section(
    title: str, best: Sequence[Case], worst: Sequence[Case], unit: str = ""
) -> str:
    """The best and the worst predictions of a probe on one task, playing.

    Args:
        title: names the encoder and the task.
        unit: of numbers.
    """
    body = ""
    for heading, cases in (("Best predictions", best), ("Worst predictions", worst)):
        films = "".join(playing(Clip(said_of(c, unit), c.frames, c.fps)) for c in cases)
        body += f"<h3>{html.escape(heading)}</h3><div class='films'>{films}</div>"
    return section(title, body)


def said_of(case: Case, unit: str = "") -> str:
    """The caption of a case, such as "predicted 52, true 38 % (study 7)"."""
    after = f" {unit}" if unit else ""
    return f"predicted {_short(case.predicted)}, true {_short(case.truth)}{after} ({case.id})"


def _short(value: float | str) -> str:
    """A number to three digits, or to whole ones from 100 on; a class as it is."""
    if isinstance(value, str):
        return value
    if abs(value) >= 100:
        return f"{value:.0f}"
    return np.format_float_positional(value, precision=3, fractional=False, trim="-")


def _errors(predictions: Predictions) -> Floats:
    """How wrong every prediction is, [n]."""
    if not len(predictions.classes):
        return np.asarray(np.abs(predictions.output - predictions.truth), np.float64)
    is_true = predictions.classes[None] == predictions.truth[:, None]  # [n, C]
    return np.asarray(1.0 - (predictions.output * is_true).sum(axis=1), np.float64)
