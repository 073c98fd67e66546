"""Files and page of a benchmark, from a real evaluation of encoders with random weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.bench import CLIP, TINY, Bench
from support.pages import Page

from echojepa.benchmark.board import board_of
from echojepa.benchmark.config import BenchmarkConfig
from echojepa.benchmark.matching import PlannedArm, StepCost
from echojepa.benchmark.measures import Measure, measured
from echojepa.benchmark.order import SameOrder
from echojepa.benchmark.outcome import Outcome, write_files
from echojepa.benchmark.page import write_page
from echojepa.benchmark.runs import RunRecord
from echojepa.benchmark.tables import plan_table
from echojepa.config import validate
from echojepa.data.corrupt import CorruptionSuite
from echojepa.data.sampling import ClipConfig
from echojepa.encoders.ours import UntrainedSource
from echojepa.evaluate import find
from echojepa.probes.fitting import BASELINE

NAMES = {
    "ours, seed 0": ("ours", 0),
    "ours, seed 1": ("ours", 1),
    "<random>, seed 0": ("<random>", 0),
    "<random>, seed 1": ("<random>", 1),
}
EF_MAE = Measure("ef", "test", "", "mae")


def record(rank: float) -> RunRecord:
    """A run of four steps."""
    lines: list[dict[str, Any]] = [
        {"step": s, "step_seconds": 0.5, "effective_rank": rank + s, "probe/lvef_r2": 0.1 * s}
        for s in (2, 4)
    ]
    return RunRecord(4, 64, 2.0, lines)


@pytest.fixture(scope="module")
def outcome(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Two arms of two seeds, with few labels, a corruption and other patients."""
    sources = {
        name: UntrainedSource(encoder=TINY, clip=ClipConfig(**CLIP), random_seed=i)  # type: ignore[arg-type]
        for i, name in enumerate(NAMES)
    }
    other = tmp_path_factory.mktemp("other")
    evaluation = bench.config(
        other / "out",
        encoders=sources,
        twin_seed=None,
        label_shares=(0.5, 1.0),
        robustness=CorruptionSuite(presets=("gaussian_shadow",)),
        transfers={"same again": str(bench.manifest)},
        overlap="mark",
    )
    findings = find(evaluation, bench.here)
    tree = {
        "out": "out",
        "manifest": str(bench.manifest),
        "pretrain": "pretrain.yaml",
        "evaluate": "evaluate.yaml",
        "arms": {"ours": {"kind": "pretrained"}, "<random>": {"kind": "untrained"}},
        "seeds": [0, 1],
        "reference": "ours",
    }
    return Outcome(
        config=validate(tree, BenchmarkConfig, "test"),
        plan=[PlannedArm("ours", StepCost(2e9, 16), 4)],
        runs={("ours", seed): record(10.0 * seed) for seed in (0, 1)},
        orders={0: SameOrder(64, {}), 1: SameOrder(64, {"<x>": 3})},
        encoders=NAMES,
        findings=findings,
        board=board_of(measured(findings), NAMES),
        failed={"<x>, seed 1": "lost & found"},
        facts={"git_commit": "abc", "processor": "<chip>", "versions": {"torch": "2"}},
    )


def test_means_over_seeds_are_those_of_the_evaluations_results(outcome: Outcome) -> None:
    results = {(r.task.name, r.features): r for r in outcome.findings.results}
    for arm in ("ours", "<random>"):
        score = outcome.board.score(arm, EF_MAE)
        by_hand = [results["ef", f"{arm}, seed {seed}"].test["mae"] for seed in (0, 1)]
        assert score is not None and score.value == pytest.approx(np.mean(by_hand))
    baseline = outcome.board.score(BASELINE, EF_MAE)
    assert baseline is not None and baseline.value == results["ef", BASELINE].test["mae"]


def test_all_that_an_evaluation_tells_is_a_measure(outcome: Outcome) -> None:
    assert {m.condition for m in outcome.board.measures} >= {
        "test",
        "few labels",
        "corrupted",
        "other patients",
    }
    lost = [p for p in outcome.findings.severity if p.encoder == "ours, seed 0" and p.severity > 0]
    mean = outcome.board.arms["ours"][0][
        Measure("ef", "corrupted", "all corruptions", "skill_lost")
    ]
    of_ef = [point.skill_lost for point in lost if point.task == "ef"]
    assert len(of_ef) == 3 and mean.value == pytest.approx(np.mean(of_ef))


def test_curves_of_arms_are_means_of_their_seeds(outcome: Outcome) -> None:
    assert len(outcome.label_curve) == len(outcome.findings.label_curve) / 2
    assert len(outcome.severity) == len(outcome.findings.severity) / 2
    point = next(p for p in outcome.severity if (p.encoder, p.severity) == ("ours", 2))
    seeds = [
        p
        for p in outcome.findings.severity
        if p.encoder.startswith("ours")
        and (p.task, p.kind, p.severity) == (point.task, point.kind, 2)
    ]
    assert point.skill_lost == pytest.approx(np.mean([p.skill_lost for p in seeds]))
    draws = np.mean([p.drawn["skill_lost"] for p in seeds], axis=0)
    assert point.skill_lost_interval == pytest.approx(tuple(np.percentile(draws, (2.5, 97.5))))


def test_files_hold_the_same_numbers(outcome: Outcome, tmp_path: Path) -> None:
    write_files(outcome, tmp_path)
    score = outcome.board.score("ours", EF_MAE)
    assert score is not None
    table = pq.read_table(tmp_path / "benchmark.parquet").to_pylist()
    (mean,) = [
        line
        for line in table
        if all(line[k] == v for k, v in {"arm": "ours", **EF_MAE._asdict()}.items())
        and line["seed"] is None
        and line["minus"] is None
    ]
    assert (mean["value"], mean["low"], mean["high"]) == (score.value, *score.interval)
    known = json.loads((tmp_path / "benchmark.json").read_text())
    assert known["git_commit"] == "abc" and known["failed"] == {"<x>, seed 1": "lost & found"}
    assert len(known["scores"]) == len(table)
    assert known["plan"][0]["flops"] == 8e9
    text = (tmp_path / "benchmark.md").read_text()
    assert f"{score.value:.3f} [{score.interval.low:.3f}" in text
    assert "No result of <x>, seed 1: lost & found" in text
    assert "Seed 0: all arms saw the same 64 clips in the same order." in text
    assert text.count("\n|---") == len(outcome.tables)
    apart = outcome.tables[2]
    assert [head.text for head in apart.heads] == ["measure", "<random>", BASELINE]
    assert [row[0].text for row in apart.rows[:2]] == ["ef mae (%) ↓", "ef r2 ↑"]


def test_the_page_needs_nothing_from_outside_and_shows_all_arms(
    outcome: Outcome, tmp_path: Path
) -> None:
    text = write_page(outcome, tmp_path / "page.html").read_text()
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    assert "url(" not in text and "http" not in text
    for title in ("Frozen encoders", "Differences to ours", "Few labels", "Costs", "Online probe"):
        assert f"<h2>{title}</h2>" in text
    assert "<h2>Effective rank of the features</h2>" in text
    assert [row[0] for row in page.rows[:4]] == ["arm", "ours", "<random>", BASELINE]
    assert "No result of <x>, seed 1: lost & found" in page.text
    assert "other clips, or another order: <x> from sample 3 on" in page.text
    assert len(page.images()) == 5


def test_a_difference_that_its_interval_does_not_carry_is_not_bold(
    outcome: Outcome, tmp_path: Path
) -> None:
    """The two arms are random weights of one size; the same arm twice differs in nothing."""
    same = {**outcome.board.arms, "<random>": outcome.board.arms["ours"]}
    twice = replace(outcome, board=replace(outcome.board, arms=same))
    page = Page(write_page(twice, tmp_path / "page.html").read_text())
    found = [page.rows[row] for row in (i for i, r in enumerate(page.rows) if "<random>" in r)]
    heads = next(row for row in found if row[0] == "measure")
    assert heads == ["measure", "<random>", BASELINE]
    first = page.rows.index(heads)
    assert page.rows[first + 1][1] == "+0.000 [+0.000, +0.000] ±0.000"
    assert not [place for place in page.best if place[0] > first and place[1] == 1]
    assert not [place for place in page.best if page.rows[place[0]][0] in ("ours", "<random>")]


def test_a_plan_says_what_every_arm_gets() -> None:
    teacher = PlannedArm("teacher", StepCost(1e9, 16), 500)
    student = PlannedArm("student", StepCost(2e9, 16), 250, teacher)
    rows = plan_table([teacher, student], 3).rows
    assert [[cell.text for cell in row] for row in rows] == [
        ["teacher", "1.00", "500", "8,000", "0.500", "3"],
        ["student", "2.00", "250", "4,000", "1.000", "3"],
    ]
    assert rows[1][0].small == "after teacher"
