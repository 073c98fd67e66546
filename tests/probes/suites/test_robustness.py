"""Lost skill: nothing for nothing, the size that a pencil finds, and paired over patients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from support.toy import CLASS, NUMBER, Vectors, features_of, fitted, of_split, toy

from echojepa.data.problem import Problem
from echojepa.errors import ManifestError
from echojepa.probes.examples import Material
from echojepa.probes.fitting import Judged, fit_baseline
from echojepa.probes.intervals import patient_draws
from echojepa.probes.store import Features
from echojepa.probes.suites.robustness import CLEAN, SeverityPoint, severity_points
from echojepa.probes.tasks import Task

ROWS, VECTORS = toy(classes=3)
TEST, CLEAN_VECTORS = of_split(ROWS, VECTORS, "test")
NOISE = np.random.default_rng(8).normal(size=CLEAN_VECTORS.shape).astype(np.float32)
BOTH = pytest.mark.parametrize("task", [NUMBER, CLASS], ids=lambda task: task.kind)


def points(
    judged: Judged, conditions: dict[str, Vectors], rows: pa.Table = TEST
) -> list[SeverityPoint]:
    """Of one probe; conditions beside the clean one."""
    shown = {CLEAN: CLEAN_VECTORS, **conditions}
    found = {name: {judged.encoder: features_of(rows, v)} for name, v in shown.items()}
    return list(severity_points([judged], fit_baseline(judged.labels), rows, found))


@BOTH
def test_nothing_done_costs_nothing(task: Task) -> None:
    judged, _ = fitted(ROWS, VECTORS, task)
    same = {f"{kind} {step}": CLEAN_VECTORS for kind in ("haze", "gain") for step in (1, 2, 3)}
    found = points(judged, same)
    assert len(found) == 2 * 4
    for point in found:
        assert point.skill_lost == 0
        assert point.skill_lost_interval == (0, 0)
        assert point.relative_degradation == 0
        assert point.test == pytest.approx(judged.result.test)
        assert point.test_intervals == judged.result.intervals


@BOTH
def test_the_control_is_among_the_points_of_every_kind(task: Task) -> None:
    judged, _ = fitted(ROWS, VECTORS, task)
    worse = {
        f"{kind} {step}": CLEAN_VECTORS + NOISE for kind in ("haze", "gain") for step in (1, 3)
    }
    found = points(judged, worse)
    for kind in ("haze", "gain"):
        line = {point.severity: point for point in found if point.kind == kind}
        assert set(line) == {0, 1, 3}
        assert line[0].skill_lost == 0 and line[0].test == pytest.approx(judged.result.test)
        assert line[1].skill_lost > 0 and line[1].test != line[0].test
    assert {(p.encoder, p.task) for p in found} == {("encoder", task.name)}


def errors_by_hand(judged: Judged, vectors: Vectors) -> NDArray[np.float64]:
    """What the probe does wrong, of every study or clip, from its arrays alone."""
    probe: Any = judged.probe
    x = vectors.mean(axis=1, dtype=np.float64)
    said = (x - probe.mean) / probe.scale @ probe.weight.T + probe.bias
    if judged.labels.task is CLASS:
        right = probe.classes[said.argmax(axis=1)] == np.array(TEST["kind"].to_pylist())
        return 1.0 - right
    studies = np.array(TEST["study_id"].to_pylist())
    truth = np.array(TEST["lvef"].to_pylist())
    names = np.unique(studies)
    return np.array([abs(said[studies == s, 0].mean() - truth[studies == s][0]) for s in names])


def baseline_by_hand(judged: Judged) -> NDArray[np.float64]:
    """What saying the mean of the training studies, or the commonest class, does wrong."""
    train, _ = of_split(ROWS, VECTORS, "train")
    if judged.labels.task is CLASS:
        kinds = train["kind"].to_pylist()
        common = max(sorted(set(kinds)), key=kinds.count)
        return 1.0 - (np.array(TEST["kind"].to_pylist()) == common)
    of_study = dict(zip(train["study_id"].to_pylist(), train["lvef"].to_pylist(), strict=True))
    mean = np.mean(list(of_study.values()))
    truths = dict(zip(TEST["study_id"].to_pylist(), TEST["lvef"].to_pylist(), strict=True))
    return np.array([abs(truths[s] - mean) for s in sorted(truths)])


def summed_up(task: Task, errors: NDArray[np.float64], times: NDArray[np.float64]) -> Any:
    """Mean error; of classes, the mean over classes of the mean error in each."""
    if task is NUMBER:
        return (times @ errors) / times.sum(axis=1)
    kinds = np.array(TEST["kind"].to_pylist())
    each = []
    for kind in np.unique(kinds):
        weights = times * (kinds == kind)
        each.append(np.where(weights.sum(axis=1) > 0, weights @ errors, np.nan))
        each[-1] /= np.maximum(weights.sum(axis=1), 1)
    return np.nanmean(each, axis=0)


@BOTH
@pytest.mark.parametrize("strength", [0.5, 2.0])
def test_its_size_and_interval_are_those_of_a_pencil(task: Task, strength: float) -> None:
    judged, _ = fitted(ROWS, VECTORS, task)
    worse = CLEAN_VECTORS + strength * NOISE
    (point,) = (p for p in points(judged, {"haze 2": worse}) if p.severity == 2)
    before, after = (errors_by_hand(judged, v) for v in (CLEAN_VECTORS, worse))
    chance = baseline_by_hand(judged)
    once = np.ones((1, len(before)))
    b, a, c = (summed_up(task, errors, once)[0] for errors in (before, after, chance))
    assert 0 < b < a < 2 * c
    assert point.skill_lost == pytest.approx((1 - b / c) - (1 - a / c))
    assert point.relative_degradation == pytest.approx((a - b) / b)
    ids = TEST["patient_id"].to_pylist()
    draws = patient_draws(np.array(ids if task is CLASS else sorted(set(ids))))
    b, a, c = (summed_up(task, errors, draws) for errors in (before, after, chance))
    low, high = np.percentile((a - b) / c, [2.5, 97.5])
    assert point.skill_lost_interval == pytest.approx((low, high))
    assert low < point.skill_lost < high


def test_what_gets_better_has_lost_less_than_nothing() -> None:
    judged, _ = fitted(ROWS, VECTORS, NUMBER)
    shown = {CLEAN: CLEAN_VECTORS + NOISE, "gain 1": CLEAN_VECTORS}
    found = {name: {judged.encoder: features_of(TEST, v)} for name, v in shown.items()}
    baseline = fit_baseline(judged.labels)
    point = list(severity_points([judged], baseline, TEST, found))[-1]
    assert point.skill_lost < 0 and point.relative_degradation < 0


class Told:
    """Says what the first feature is."""

    classes = np.empty(0)
    chosen = None

    def predict(self, material: Material, index: NDArray[np.int64]) -> NDArray[np.float64]:
        return material.vectors[index, 0]


def telling(values: NDArray[np.float64]) -> Vectors:
    """Features of test clips by which `Told` says these numbers."""
    return np.tile(values[:, None, None], (1, 2, 1)).astype(np.float32)


def test_the_same_error_on_top_of_every_other_is_certain() -> None:
    """Paired over patients: what varies between them drops out."""
    judged, _ = fitted(ROWS, VECTORS, NUMBER)
    told = replace(judged, probe=Told())
    truth = np.array(TEST["lvef"].to_pylist())
    own = {study: 1 + i for i, study in enumerate(dict.fromkeys(TEST["study_id"].to_pylist()))}
    error = np.array([own[study] for study in TEST["study_id"].to_pylist()])
    shown = {CLEAN: telling(truth + error), "haze 1": telling(truth + error + 5)}
    found = {name: {"encoder": features_of(TEST, v)} for name, v in shown.items()}
    point = list(severity_points([told], fit_baseline(judged.labels), TEST, found))[-1]
    chance = baseline_by_hand(judged).mean()
    assert point.skill_lost == pytest.approx(5 / chance, rel=1e-4)
    low, high = point.skill_lost_interval
    draws = patient_draws(np.array(sorted(own)))
    spread = np.percentile(draws @ np.array(list(own.values())) / 30, [2.5, 97.5])
    assert high - low < 0.5 * (spread[1] - spread[0]) / chance


def test_a_probe_that_says_the_mean_has_no_skill_to_lose() -> None:
    """And looks as robust as can be by the published measure; the good one pays."""
    good, _ = fitted(ROWS, VECTORS, NUMBER)
    mean = replace(good, probe=fit_baseline(good.labels))
    destroyed = {"haze 3": 3 * NOISE}
    for judged, pays in ((mean, False), (good, True)):
        point = points(judged, destroyed)[-1]
        assert (point.skill_lost > 0.5) == pays
        assert (point.relative_degradation > 1) == pays
        if not pays:
            assert (point.skill_lost, point.relative_degradation) == (0, 0)
            assert point.skill_lost_interval == (0, 0)


def test_no_error_at_all_grows_without_bounds() -> None:
    judged, _ = fitted(ROWS, VECTORS, NUMBER)
    truth = np.array(TEST["lvef"].to_pylist(), np.float32).astype(np.float64)
    exact = TEST.set_column(TEST.column_names.index("lvef"), "lvef", pa.array(truth))
    shown = {CLEAN: telling(truth), "haze 1": telling(truth + 1), "haze 2": telling(truth)}
    found = {name: {"encoder": features_of(exact, v)} for name, v in shown.items()}
    told, baseline = replace(judged, probe=Told()), fit_baseline(judged.labels)
    growth = [p.relative_degradation for p in severity_points([told], baseline, exact, found)]
    assert growth == [0.0, float("inf"), 0.0]


def lost(features: Features, number: int) -> Features:
    """The same, one clip of which could not be read."""
    problems, pooled = list(features.problems), features.pooled.copy()
    problems[number], pooled[number] = Problem("open", "missing", "no such file"), np.nan
    return Features(features.clip_ids, problems, pooled)


def test_a_clip_that_cannot_be_read_once_is_left_out_everywhere() -> None:
    """Or corrupted clips would be compared with more clean ones."""
    task = NUMBER.model_copy(update={"level": "clip"})
    judged, _ = fitted(ROWS, VECTORS, task)
    worse, kept = CLEAN_VECTORS + NOISE, np.arange(len(TEST)) != 4
    found = {
        CLEAN: {"encoder": features_of(TEST, CLEAN_VECTORS)},
        "haze 1": {"encoder": lost(features_of(TEST, worse), 4)},
        "haze 2": {"encoder": features_of(TEST, worse)},
    }
    one = list(severity_points([judged], fit_baseline(judged.labels), TEST, found))
    few = TEST.filter(pa.array(kept))
    shown = {CLEAN: CLEAN_VECTORS[kept], "haze 1": worse[kept], "haze 2": worse[kept]}
    alone = points(judged, shown, few)
    assert [p.described() for p in one] == [p.described() for p in alone]


def test_an_encoder_that_failed_under_a_condition_does_not_cost_the_others() -> None:
    a, b = (fitted(ROWS, VECTORS, NUMBER, encoder=name)[0] for name in "ab")
    clean, worse = (features_of(TEST, v) for v in (CLEAN_VECTORS, CLEAN_VECTORS + NOISE))
    found = {CLEAN: {"a": clean, "b": clean}, "haze 1": {"b": worse}}
    given = list(severity_points([a, b], fit_baseline(a.labels), TEST, found))
    assert [(p.encoder, p.severity) for p in given] == [("b", 0), ("b", 1)]


def test_nothing_readable_is_an_error() -> None:
    judged, _ = fitted(ROWS, VECTORS, CLASS)
    none = Features(
        TEST["clip_id"].to_pylist(), [Problem("open", "missing", "")] * len(TEST), NOISE
    )
    found = {CLEAN: {"encoder": features_of(TEST, CLEAN_VECTORS)}, "haze 1": {"encoder": none}}
    with pytest.raises(ManifestError, match="'view' has no readable labelled clip in split 'test'"):
        list(severity_points([judged], fit_baseline(judged.labels), TEST, found))
