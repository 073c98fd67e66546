"""Corrupted clips: curves and the table of what is lost."""

from __future__ import annotations

import numpy as np
from support.pages import Page

from echojepa.pictures.looks import PALETTE, looks
from echojepa.pictures.severity import severity_section
from echojepa.probes.intervals import Interval
from echojepa.probes.suites.robustness import SeverityPoint
from echojepa.probes.tasks import Task

EF = Task(name="<EF>", label="lvef", kind="regression", unit="%")
VIEW = Task(name="view", label="view", kind="classification")
UNUSED = Task(name="unused", label="view", kind="classification")


def point(encoder: str, task: Task, kind: str, severity: float) -> SeverityPoint:
    """Skill falls by a tenth of the severity; the error grows by a fifth of it."""
    metric = "mae" if task.kind == "regression" else "balanced_accuracy"
    score = 5.0 + severity if task.kind == "regression" else 0.9 - severity / 10
    return SeverityPoint(
        encoder=encoder,
        task=task.name,
        kind=kind,
        severity=severity,
        test={metric: score},
        test_intervals={metric: Interval(score - 0.05, score + 0.05)},
        skill_lost=severity / 10,
        skill_lost_interval=Interval(severity / 10 - 0.02, severity / 10 + 0.02),
        relative_degradation=severity / 5,
        drawn={},
    )


POINTS = [
    point(name, task, kind, severity)
    for name in ("<ours>", "other")
    for task in (EF, VIEW)
    for kind in ("shadow", "<haze>")
    for severity in (2.15, 0.0, 0.75)  # in any order
]
LOOKS = looks(["<ours>", "other"])


def test_a_table_per_task_holds_every_loss_and_their_mean() -> None:
    page = Page(severity_section(POINTS, [EF, VIEW, UNUSED], LOOKS))
    assert page.tags.count("table") == 2
    for name, number in (("<EF>", 1), ("view", 1), ("unused", 0)):
        assert page.text.count(f"{name}corruption") == number
    rows = page.rows[:6]
    assert rows[0] == ["corruption", "<ours>", "other"]
    assert [row[0] for row in rows[1:]] == [
        "<haze> 0.75",
        "<haze> 2.15",
        "shadow 0.75",
        "shadow 2.15",
        "mean",
    ]
    assert rows[1][1:] == ["0.075 [0.055, 0.095]error +15.0%"] * 2
    assert rows[4][1:] == ["0.215 [0.195, 0.235]error +43.0%"] * 2
    assert rows[5][1:] == ["0.145error +29.0%"] * 2


def test_clean_clips_are_not_counted_as_a_corruption() -> None:
    clean = [p for p in POINTS if p.severity == 0]
    page = Page(severity_section([*clean, point("other", EF, "shadow", 1.0)], [EF], LOOKS))
    assert [row[0] for row in page.rows] == ["corruption", "shadow 1", "mean"]
    assert page.rows[0] == ["corruption", "other"]


def test_an_encoder_that_lacks_a_corruption_has_no_mean() -> None:
    some = [p for p in POINTS if (p.encoder, p.kind, p.severity) != ("other", "shadow", 2.15)]
    rows = Page(severity_section(some, [EF], LOOKS)).rows
    assert rows[4][1:] == ["0.215 [0.195, 0.235]error +43.0%", "–"]
    assert rows[5][1:] == ["0.145error +29.0%", "–"]


def test_a_panel_per_task_and_kind_shows_a_line_per_encoder() -> None:
    (image,) = Page(severity_section(POINTS, [EF, VIEW], LOOKS)).images()
    assert image.shape[:2] == (2 * 374, 3 * 440)
    for colour in PALETTE[:2]:
        rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        near = np.abs(image.astype(int) - rgb).sum(axis=-1) < 30
        assert near[:374, :440].sum() > 30 or colour == PALETTE[0]  # the second covers the first
    bare = [p for p in POINTS if p.encoder == "<ours>"]
    (alone,) = Page(severity_section(bare, [EF, VIEW], LOOKS)).images()
    assert not np.array_equal(image, alone)
