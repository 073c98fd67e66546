"""Other people's patients: the probe as it was saved, and nobody it knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from support.bench import CLIP, TINY
from support.toy import CLASS, NUMBER, Vectors, features_of, fitted, of_split, toy

from echojepa.data.problem import Problem
from echojepa.encoders.ours import UntrainedSource
from echojepa.errors import ManifestError
from echojepa.probes.extraction import ExtractConfig
from echojepa.probes.leaks import Overlap, Pretraining
from echojepa.probes.probe_file import SavedProbe, save_probe
from echojepa.probes.store import Features
from echojepa.probes.suites.transfer import OtherPatients, Transfer, transferred
from echojepa.probes.tasks import Task

UNKNOWN = Pretraining(known=False, num_overlapping=0)
ROWS, VECTORS = toy()
OTHER_ROWS, OTHER_VECTORS = toy((20, 5, 25), seed=5, prefix="other ")
TEST, TEST_VECTORS = of_split(OTHER_ROWS, OTHER_VECTORS, "test")


def others(rows: pa.Table = OTHER_ROWS, vectors: Vectors = OTHER_VECTORS) -> OtherPatients:
    """Another manifest."""
    test, of_test = of_split(rows, vectors, "test")
    found = {"encoder": features_of(test, of_test)}
    return OtherPatients("elsewhere", rows, found, {"encoder": UNKNOWN})


def moved(rows: pa.Table) -> pa.Table:
    """With labels that are higher and spread less."""
    return changed(rows, "lvef", [20 + v / 2 for v in rows["lvef"].to_pylist()])


def changed(rows: pa.Table, column: str, values: list[Any]) -> pa.Table:
    """One column replaced."""
    return rows.set_column(rows.column_names.index(column), column, pa.array(values))


def judged_on(
    target: OtherPatients, task: Task = NUMBER, overlap: Overlap = "stop"
) -> list[Transfer]:
    """A probe of ours."""
    judged, _ = fitted(ROWS, VECTORS, task)
    return transferred(target, [judged], ("doppler",), overlap)


def said_by_hand(probe: Any, vectors: Vectors) -> NDArray[np.float64]:
    """From the arrays of a linear probe, [n, outputs]."""
    x = vectors.mean(axis=1, dtype=np.float64)
    return np.asarray((x - probe.mean) / probe.scale @ probe.weight.T + probe.bias)


def by_study(rows: pa.Table, values: NDArray[np.float64]) -> dict[str, float]:
    """Means of clips."""
    studies = np.array(rows["study_id"].to_pylist())
    return {study: float(values[studies == study].mean()) for study in np.unique(studies)}


def test_strict_is_the_saved_probe_as_it_is(tmp_path: Path) -> None:
    judged, _ = fitted(ROWS, VECTORS, NUMBER)
    source = UntrainedSource(encoder=TINY, clip=CLIP)  # type: ignore[arg-type]
    probe = SavedProbe.load(save_probe(tmp_path, judged, source, ExtractConfig())).probe
    strict = judged_on(others(moved(OTHER_ROWS)))[0]
    assert (strict.target, strict.calibration) == ("elsewhere", "strict")
    expected = by_study(TEST, said_by_hand(probe, TEST_VECTORS)[:, 0])
    said = strict.result.predictions
    assert dict(zip(said.ids.tolist(), said.output.tolist(), strict=True)) == pytest.approx(
        expected
    )
    truth = by_study(TEST, np.array(moved(TEST)["lvef"].to_pylist()))
    errors = [abs(expected[study] - truth[study]) for study in truth]
    assert strict.result.test["mae"] == pytest.approx(np.mean(errors))
    assert len(said.ids) == 25 and strict.result.val == {}


def test_recalibrated_is_moved_to_the_mean_and_deviation_of_their_training_studies() -> None:
    """A study of three clips weighs as much as one of one."""
    rows = moved(OTHER_ROWS)
    strict, again = judged_on(others(rows))
    assert again.calibration == "recalibrated"
    scales = []
    for table in (ROWS, rows):
        train, _ = of_split(table, np.zeros(len(table)), "train")
        values = list(by_study(train, np.array(train["lvef"].to_pylist())).values())
        scales.append((np.mean(values), np.std(values)))
    (mean, deviation), (other_mean, other_deviation) = scales
    z = (strict.result.predictions.output - mean) / deviation
    np.testing.assert_allclose(
        again.result.predictions.output, z * other_deviation + other_mean, rtol=1e-9
    )
    assert again.result.test["mae"] < 0.6 * strict.result.test["mae"]
    assert again.result.test["pearson"] == pytest.approx(strict.result.test["pearson"])


def test_classes_and_manifests_without_training_are_judged_strictly_alone() -> None:
    (strict,) = judged_on(others(), CLASS)
    assert strict.calibration == "strict"
    judged, _ = fitted(ROWS, VECTORS, CLASS)
    said: Any = judged.probe
    likeliest = said.classes[said_by_hand(said, TEST_VECTORS).argmax(axis=1)]
    right = likeliest == np.array(TEST["kind"].to_pylist())
    assert strict.result.test["accuracy"] == pytest.approx(right.mean())
    assert [t.calibration for t in judged_on(others(TEST, TEST_VECTORS))] == ["strict"]


def with_ours(number: int, split: str) -> OtherPatients:
    """The first of their test patients are those of one of our splits."""
    ours, _ = of_split(ROWS, VECTORS, split)
    known = list(dict.fromkeys(ours["patient_id"].to_pylist()))
    tested = list(dict.fromkeys(TEST["patient_id"].to_pylist()))
    same = dict(zip(tested[:number], known, strict=False))
    patients = [same.get(p, p) for p in OTHER_ROWS["patient_id"].to_pylist()]
    return others(changed(OTHER_ROWS, "patient_id", patients))


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_patient_that_the_probe_has_learnt_from_is_no_test(split: str) -> None:
    message = r"3 of 25 test patients are among those that the probes were fitted or chosen on"
    with pytest.raises(ManifestError, match=message) as caught:
        judged_on(with_ours(3, split))
    assert caught.value.where == "elsewhere"
    found = judged_on(with_ours(3, split), overlap="mark")
    assert [t.described()["probe_patients"]["num_overlapping"] for t in found] == [3, 3]


def test_a_patient_that_only_our_test_knows_is_one() -> None:
    assert {transfer.num_overlapping for transfer in judged_on(with_ours(3, "test"))} == {0}


def test_what_pretraining_knew_is_said() -> None:
    known = Pretraining(known=True, num_overlapping=4)
    target = others()._replace(pretraining={"encoder": known})
    for transfer in judged_on(target, overlap="mark"):
        assert transfer.described()["pretraining_patients"] == {
            "known": True,
            "num_overlapping": 4,
        }
        assert transfer.described()["groups"][0]["column"] == "doppler"


def unreadable(number: int) -> Features:
    """Test clips, the first of which cannot be read."""
    found = features_of(TEST, TEST_VECTORS.copy())
    found.pooled[:number] = np.nan
    problems = [Problem("open", "missing", "no such file")] * number
    return Features(found.clip_ids, [*problems, *found.problems[number:]], found.pooled)


def test_clips_that_cannot_be_read_are_left_out_or_the_end_of_it() -> None:
    task = NUMBER.model_copy(update={"level": "clip"})
    some = others()._replace(features={"encoder": unreadable(4)})
    strict = judged_on(some, task)[0].result.predictions
    assert strict.ids.tolist() == TEST["clip_id"].to_pylist()[4:]
    none = others()._replace(features={"encoder": unreadable(len(TEST))})
    with pytest.raises(ManifestError, match="'ef' has no readable labelled clip in split 'test'"):
        judged_on(none, task)
    train, vectors = of_split(OTHER_ROWS, OTHER_VECTORS, "train", "val")
    with pytest.raises(ManifestError, match="no readable labelled clip in split 'test'"):
        judged_on(others(train, vectors), task)


@pytest.mark.parametrize("column", ["lvef", "patient_id"])
def test_studies_are_not_mixed_up(column: str) -> None:
    """One label and one patient each, as where the probe was fitted."""
    values = [f"{i}" if column == "patient_id" else float(i) for i in range(len(OTHER_ROWS))]
    with pytest.raises(ManifestError, match=r"has (several values|clips of several patients)"):
        judged_on(others(changed(OTHER_ROWS, column, values)))


def test_an_encoder_that_failed_on_them_does_not_cost_the_others() -> None:
    judged = [fitted(ROWS, VECTORS, NUMBER, encoder=name)[0] for name in ("gone", "encoder")]
    found = transferred(others(), judged, (), "stop")
    assert [transfer.result.features for transfer in found] == ["encoder", "encoder"]
