"""The report: one file that needs nothing else, and says what was measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.bench import baseline_result, linear_result
from support.pages import Page

from echojepa.data.problem import Problem
from echojepa.pictures.report import Report, write_report
from echojepa.probes.fitting import ProbeResult
from echojepa.probes.metrics import SHOWN
from echojepa.probes.tasks import Labels, Task

EF = Task(name="<EF> & more", label="lvef", kind="regression", unit="%")
VIEW = Task(name="view", label="view", kind="classification")
SPLITS = np.repeat(["train", "val", "test"], [24, 8, 48])


@pytest.fixture(scope="module")
def results() -> list[ProbeResult]:
    """Two tasks, two encoders and a baseline each."""
    features = np.random.default_rng(0).normal(size=(80, 4))
    ef = 55 + 5 * features[:, 0]
    views = np.where(features[:, 1] > 0, "A4C", "<PSAX>")
    found = []
    for task, values in ((EF, ef), (VIEW, views)):
        ids = [str(i) for i in range(80)]
        patients = np.array([f"p{i // 2}" for i in range(80)])
        labels = Labels(task, ids, patients, np.array(ids), SPLITS, values)
        found.append(linear_result(labels, "pretrained", features))
        found.append(linear_result(labels, "random <weights>", features[::-1]))
        found.append(baseline_result(labels))
    return found


CURVES: list[dict[str, Any]] = [
    {"step": step, "loss": 1 / step, "loss/mask0": 2 / step, "lr": 1e-3, "effective_rank": 9.0}
    | ({"probe/ef_r2": 0.1 * step, "probe/ef_mae": 3.0} if step % 2 == 0 else {})
    for step in (1, 2, 3, 4)
]
PICTURE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
DECODING = [Problem("decode", kind, "said") for kind in ("truncated", "<u>")]
NOTHING = Report(results=[], curves=[], pictures=[], facts={}, unread=[])


@pytest.fixture(scope="module")
def full(results: list[ProbeResult], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The text of a page with everything on it."""
    report = Report(
        results=results,
        curves=CURVES,
        pictures=[PICTURE, PICTURE + 1],
        facts={"manifest SHA-256": "abc<def>", "<b>": "<i>"},
        unread=[Problem("open", "missing", "no such file"), *DECODING],
    )
    path = tmp_path_factory.mktemp("report") / "report.html"
    assert write_report(report, path) == path
    return path.read_text(encoding="utf-8")


def test_the_page_begins_with_all_encoders_on_all_tasks(full: str) -> None:
    page = Page(full)
    assert page.rows[0] == ["features", "<EF> & moremae (%) ↓", "viewbalanced accuracy ↑"]
    assert [row[0] for row in page.rows[1:4]] == ["pretrained", "random <weights>", "predict mean"]
    assert page.best == [(1, 1), (1, 2)]


def test_parts_that_are_built_elsewhere_stand_between_tasks_and_pretraining(
    results: list[ProbeResult], tmp_path: Path
) -> None:
    parts = {"attention": "<i>gaze</i>", "films": "<i>films</i>", "umap": "<i>map</i>"}
    report = replace(NOTHING, results=results, curves=CURVES, **parts)
    text = write_report(report, tmp_path / "page.html").read_text()
    order = ["<h2>view</h2>", parts["umap"], parts["films"], parts["attention"], ">Pretraining<"]
    where = [text.index(part) for part in order]
    assert where == sorted(where)


def test_the_page_needs_nothing_from_outside(full: str) -> None:
    page = Page(full)
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    assert not [value for name, value in page.attributes if name in ("href", "srcset")]
    assert "url(" not in full and "@import" not in full and "http" not in full
    assert page.tags.count("html") == page.tags.count("h1") == 1
    assert len(page.images()) == 1 + 2 + 1 + 2


def test_tables_hold_the_test_metrics(full: str, results: list[ProbeResult]) -> None:
    page = Page(full)
    assert page.tags.count("table") == 3
    _, ef, view = (page.rows[start : start + 4] for start in (0, 4, 8))
    assert ef[0][:4] == ["features", "mae", "r2", "pearson"]
    assert view[0][:4] == ["features", "balanced accuracy", "auroc", "auprc"]
    for row, result in zip(ef[1:] + view[1:], results, strict=True):
        names = SHOWN[result.task.kind]
        bounds = [result.intervals[name] for name in names]
        assert row == [
            result.features,
            *(
                f"{result.test[name]:.3f} [{low:.3f}, {high:.3f}]"
                for name, (low, high) in zip(names, bounds, strict=True)
            ),
        ]


def test_groups_have_a_table_of_their_own(results: list[ProbeResult], tmp_path: Path) -> None:
    """Where there are several; one group alone is the table above."""

    def grouped(vendors: NDArray[np.str_]) -> Page:
        found = [
            replace(r, predictions=replace(r.predictions, groups={"vendor": vendors}))
            for r in results[:3]
        ]
        return Page(write_report(replace(NOTHING, results=found), tmp_path / "g.html").read_text())

    number = len(results[0].predictions.ids)
    page = grouped(np.where(np.arange(number) < 8, "<one>", "other"))
    header, first, second = page.rows[8:11]
    assert header == ["group", "test patients", "pretrained", "random <weights>", "predict mean"]
    assert first[:2] == ["vendor: <one>", "4"] and second[:2] == ["vendor: other", "20"]
    errors = np.abs(results[0].predictions.output - results[0].predictions.truth)
    assert first[2].startswith(f"{errors[:8].mean():.3f} [")
    assert second[2].startswith(f"{errors[8:].mean():.3f} [")
    assert len(grouped(np.array(["same"] * number)).rows) == 8


def marked(page: str) -> list[str]:
    """The rows in bold."""
    return [part.split("</td>")[0] for part in page.split("<tr class=best><td>")[1:]]


def test_the_best_row_of_every_task_is_marked(full: str) -> None:
    assert marked(full) == ["pretrained", "pretrained"]


def test_what_the_interval_does_not_carry_is_not_marked(
    results: list[ProbeResult], tmp_path: Path
) -> None:
    """Two probes that differ by chance: neither is in bold, though one has the better score."""
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(80, 3))
    ids = [str(i) for i in range(80)]
    labels = Labels(EF, ids, np.array(ids), np.array(ids), SPLITS, rng.normal(55, 10, 80))
    other = noise + 0.3 * rng.normal(size=(80, 3))
    pair = [linear_result(labels, name, x) for name, x in (("one", noise), ("other", other))]
    assert pair[0].test["mae"] != pair[1].test["mae"]
    page = write_report(replace(NOTHING, results=pair), tmp_path / "page.html").read_text()
    assert marked(page) == []


def test_names_are_escaped(full: str) -> None:
    page = Page(full)
    assert not {"b", "i", "u", "ef", "psax", "weights"} & set(page.tags)
    assert "<EF> & more" in page.text
    assert "abc<def>" in page.text
    assert "48 test studies of 24 patients, in %" in page.text


def test_figures_are_drawn_and_pictures_are_exact(full: str) -> None:
    *figures, one, other = Page(full).images()
    for figure in figures:
        assert min(figure.shape[:2]) > 200
        assert figure.std() > 10
    assert np.array_equal(one, PICTURE)
    assert np.array_equal(other, PICTURE + 1)


def test_unreadable_clips_are_counted_by_kind(full: str) -> None:
    assert "3 clip(s) could not be read (<u>, missing, truncated)." in Page(full).text


def test_a_single_task_without_a_run(results: list[ProbeResult], tmp_path: Path) -> None:
    report = replace(NOTHING, results=results[:3])
    page = Page(write_report(report, tmp_path / "report.html").read_text())
    assert page.tags.count("section") == page.tags.count("table") == 2
    assert len(page.images()) == 2
    assert "could not be read" not in page.text


def test_curves_of_a_restarted_run_without_a_probe(tmp_path: Path) -> None:
    bare = [{k: v for k, v in line.items() if not k.startswith("probe")} for line in CURVES]
    once = write_report(replace(NOTHING, curves=bare), tmp_path / "once.html").read_text()
    redone = replace(NOTHING, curves=[*bare[:3], *bare[1:]])
    assert write_report(redone, tmp_path / "redone.html").read_text() == once
    assert len(Page(once).images()) == 1
