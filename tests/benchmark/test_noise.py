"""Curves over noise from the files of benchmarks: what is read, what is said, what is drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.pages import Page

from echojepa.benchmark.noise import Knob, NoiseConfig, Point, level_table, read_points, verdict
from echojepa.benchmark.noise_page import NoiseCurves, write_curves
from echojepa.config import load
from echojepa.errors import StorageError

CONFIG = NoiseConfig(
    out="out",
    benchmark="benchmark.yaml",
    knobs={"speckle_contrast": (1.0, 0.2), "decorrelation_seconds": (0.05, 2.0, 0.35)},
)
PAIR = ("jepa", "mae")


def lines(value: float, arm: str, minus: str | None = None, **other: Any) -> list[dict[str, Any]]:
    """What a benchmark writes of one score: a seed, and the mean with an interval of +-1."""
    known = {"arm": arm, "minus": minus, "task": "EF", "condition": "test", "detail": ""}
    known |= {"metric": "mae"} | other
    return [
        known | {"seed": 0, "value": value, "low": None, "high": None},
        known | {"seed": None, "value": value, "low": value - 1, "high": value + 1},
    ]


def written(folder: Path, advantage: float) -> Path:
    """A finished benchmark in which one arm is better than the other by so much."""
    scores = [
        *lines(5.0, "jepa"),
        *lines(5.0 + advantage, "mae"),
        *lines(-advantage, "jepa", "mae"),
        *lines(0.5, "jepa", metric="r2"),
        *lines(9.0, "jepa", condition="few labels", detail="0.1"),
        *lines(0.7, "jepa", task="view", metric="balanced_accuracy"),
    ]
    folder.mkdir(parents=True)
    (folder / "benchmark.json").write_text(json.dumps({"scores": scores}))
    return folder


@pytest.fixture
def points(tmp_path: Path) -> list[Point]:
    """The advantage grows from 1 to 6 with contrast, and hardly with what decorrelates faster."""
    levels: dict[tuple[Knob, float], Path] = {
        ("speckle_contrast", 0.2): written(tmp_path / "calm", 1.0),
        ("speckle_contrast", 1.0): written(tmp_path / "usual", 6.0),
        ("decorrelation_seconds", 0.35): tmp_path / "usual",
        ("decorrelation_seconds", 2.0): written(tmp_path / "slow", 5.0),
        ("decorrelation_seconds", 0.05): written(tmp_path / "fast", 6.5),
    }
    return read_points(levels)


def test_means_of_headline_scores_on_test_patients_are_read(points: list[Point]) -> None:
    here = [p for p in points if (p.knob, p.level) == ("speckle_contrast", 0.2)]
    assert [(p.task, p.arm, p.minus, p.value) for p in here] == [
        ("EF", "jepa", None, 5.0),
        ("EF", "mae", None, 6.0),
        ("EF", "jepa", "mae", -1.0),
        ("view", "jepa", None, 0.7),
    ]
    assert here[2].interval == (-2.0, 0.0)


def test_a_level_without_a_benchmark_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no finished benchmark"):
        read_points({("speckle_contrast", 1.0): tmp_path})


def test_the_noisiest_level_stands_last(points: list[Point]) -> None:
    assert CONFIG.ordered("speckle_contrast") == [0.2, 1.0]
    assert CONFIG.ordered("decorrelation_seconds") == [2.0, 0.35, 0.05]
    table = level_table(CONFIG, points, "decorrelation_seconds", "EF", ["jepa", "mae"])
    assert [cell.text for cell in table.heads] == [
        "decorrelation_seconds", "jepa", "mae", "jepa minus mae"
    ]  # fmt: skip
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["2", "5.000", "10.000", "-5.000"],
        ["0.35", "5.000", "11.000", "-6.000"],
        ["0.05", "5.000", "11.500", "-6.500"],
    ]
    assert all(row[3].strong for row in table.rows)


def test_a_level_that_failed_leaves_a_gap(points: list[Point]) -> None:
    rest = [p for p in points if p.level != 0.35]
    table = level_table(CONFIG, rest, "decorrelation_seconds", "EF", ["jepa", "mae"])
    assert [cell.text for cell in table.rows[1]] == ["0.35", "–", "–", "–"]


def test_a_change_is_one_if_the_intervals_of_both_ends_are_apart(points: list[Point]) -> None:
    grown = verdict(CONFIG, points, "speckle_contrast", PAIR)
    assert grown == (
        "EF: jepa minus mae changes with speckle_contrast (mae -1.000 at 0.2, -6.000 at 1)."
    )
    unclear = verdict(CONFIG, points, "decorrelation_seconds", PAIR)
    assert verdict(CONFIG, points, "speckle_contrast", ("jepa", "salt")) == ""
    assert "is not shown to change" in unclear and "-5.000 at 2, -6.500 at 0.05" in unclear


def test_files_and_page(points: list[Point], tmp_path: Path) -> None:
    curves = NoiseCurves(CONFIG, points, ["jepa", "mae"], {"usual": "it <failed>"})
    write_curves(curves, tmp_path)
    text = (tmp_path / "noise.md").read_text()
    assert "changes with speckle_contrast" in text and "No result of usual: it <failed>" in text
    assert text.count("## EF over") == 2 and text.count("## view over") == 2
    shown = Page((tmp_path / "noise.html").read_text())
    assert "it <failed>" in shown.text
    assert len(shown.images()) == 1
    assert "Does the advantage grow with noise?" in shown.text


@pytest.mark.parametrize("levels", ["[1.0]", "[1.0, 1.0]"])
def test_a_knob_needs_two_levels(levels: str, tmp_path: Path) -> None:
    file = tmp_path / "noise.yaml"
    file.write_text(f"out: a\nbenchmark: b\nknobs: {{speckle_contrast: {levels}}}\n")
    with pytest.raises(Exception, match="speckle_contrast needs two levels or more"):
        load(file, [], NoiseConfig)
