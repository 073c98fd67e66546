"""Splits by patient."""

from __future__ import annotations

import pyarrow as pa
import pytest
from support.clips import clip_rows

from echojepa.data.manifest import (
    SPLITS,
    assign_splits,
    check_manifest,
)
from echojepa.errors import ManifestError


def patients_table(num_patients: int, clips_each: int = 2) -> pa.Table:
    """Clips of many patients, the clips of one patient far apart."""
    patients = [f"patient-{i}" for i in range(num_patients)] * clips_each
    return check_manifest(clip_rows(len(patients), patient_id=patients), "here")


def split_by_patient(table: pa.Table) -> dict[str, set[str]]:
    """The splits that occur for each patient."""
    found: dict[str, set[str]] = {}
    for patient, split in zip(
        table["patient_id"].to_pylist(), table["split"].to_pylist(), strict=True
    ):
        found.setdefault(patient, set()).add(split)
    return found


def test_assigned_splits_are_patient_disjoint_and_near_the_fractions() -> None:
    fractions = (0.8, 0.15, 0.05)
    table = assign_splits(patients_table(4000), fractions, seed=5)
    by_patient = split_by_patient(table)
    assert all(len(splits) == 1 for splits in by_patient.values())
    check_manifest(table, "here")
    shares = [sum(splits == {name} for splits in by_patient.values()) / 4000 for name in SPLITS]
    assert shares == pytest.approx(fractions, abs=0.02)


def test_a_patient_keeps_its_split_when_others_are_added() -> None:
    few = split_by_patient(assign_splits(patients_table(300), (0.6, 0.2, 0.2), seed=1))
    many = split_by_patient(assign_splits(patients_table(900, 1), (0.6, 0.2, 0.2), seed=1))
    assert {patient: many[patient] for patient in few} == few


def test_splits_depend_on_the_seed() -> None:
    table = patients_table(200)
    first = assign_splits(table, (0.5, 0.25, 0.25), seed=1)["split"]
    assert first.equals(assign_splits(table, (0.5, 0.25, 0.25), seed=1)["split"])
    assert not first.equals(assign_splits(table, (0.5, 0.25, 0.25), seed=2)["split"])


@pytest.mark.parametrize("only", range(3))
def test_a_share_of_one_takes_all(only: int) -> None:
    fractions = [0.0, 0.0, 0.0]
    fractions[only] = 1.0
    assert set(assign_splits(patients_table(200), fractions, 0)["split"].to_pylist()) == {
        SPLITS[only]
    }


@pytest.mark.parametrize(
    "fractions",
    [
        (0.8, 0.2),
        (0.8, 0.1, 0.05, 0.05),
        (0.8, 0.1, 0.2),
        (1.2, -0.1, -0.1),
        (float("nan"), 0.5, 0.5),
        (0.5, 0.5, float("nan")),
    ],
)
def test_bad_fractions(fractions: tuple[float, ...]) -> None:
    with pytest.raises(ManifestError, match="are not three shares that sum to 1"):
        assign_splits(patients_table(3), fractions, 0)
