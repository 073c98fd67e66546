"""Splits by patient."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from support.clips import clip_rows

from echojepa.data.manifest.file import read_manifest, write_manifest
from echojepa.data.manifest.schema import SPLITS
from echojepa.data.manifest.splits import assign_splits, split_manifest
from echojepa.errors import ManifestError


def patients_table(num_patients: int, clips_each: int = 2) -> pa.Table:
    """Clips of many patients, the clips of one patient far apart."""
    patients = [f"patient-{i}" for i in range(num_patients)] * clips_each
    return clip_rows(len(patients), patient_id=patients, split=pa.nulls(len(patients), pa.string()))


def assigned(table: pa.Table, fractions: tuple[float, ...], seed: int) -> pa.Table:
    """`assign_splits` of a whole table, a few rows at a time."""
    batches = table.to_batches(max_chunksize=70)
    return pa.Table.from_batches(assign_splits(batches, fractions, seed))


def split_by_patient(table: pa.Table) -> dict[str, set[str]]:
    """The splits that occur for each patient."""
    found: dict[str, set[str]] = {}
    for patient, split in zip(
        table["patient_id"].to_pylist(), table["split"].to_pylist(), strict=True
    ):
        found.setdefault(patient, set()).add(split)
    return found


def test_assigned_splits_are_patient_disjoint_and_near_the_fractions(
    tmp_path: Path,
) -> None:
    fractions = (0.8, 0.15, 0.05)
    table = assigned(patients_table(4000), fractions, seed=5)
    by_patient = split_by_patient(table)
    assert all(len(splits) == 1 for splits in by_patient.values())
    write_manifest(table, tmp_path / "manifest.parquet")
    shares = [sum(splits == {name} for splits in by_patient.values()) / 4000 for name in SPLITS]
    assert shares == pytest.approx(fractions, abs=0.02)


def test_a_patient_keeps_its_split_when_others_are_added() -> None:
    few = split_by_patient(assigned(patients_table(300), (0.6, 0.2, 0.2), seed=1))
    many = split_by_patient(assigned(patients_table(900, 1), (0.6, 0.2, 0.2), seed=1))
    assert {patient: many[patient] for patient in few} == few


def test_splits_depend_on_the_seed() -> None:
    table = patients_table(200)
    first = assigned(table, (0.5, 0.25, 0.25), seed=1)["split"]
    assert first.equals(assigned(table, (0.5, 0.25, 0.25), seed=1)["split"])
    assert not first.equals(assigned(table, (0.5, 0.25, 0.25), seed=2)["split"])


@pytest.mark.parametrize("only", range(3))
def test_a_share_of_one_takes_all(only: int) -> None:
    fractions = tuple(float(i == only) for i in range(3))
    assert set(assigned(patients_table(200), fractions, 0)["split"].to_pylist()) == {SPLITS[only]}


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
        assigned(patients_table(3), fractions, 0)


def test_uris_stay_valid_in_another_folder(tmp_path: Path) -> None:
    uris = ["videos/0.mp4", "/elsewhere/1.mp4", "s3://bucket/2.mp4", "../3.mp4"]
    source = write_manifest(clip_rows(uri=uris), tmp_path / "a" / "manifest.parquet")
    for uri in (uris[0], uris[3]):
        video = source.parent / uri
        video.parent.mkdir(exist_ok=True)
        video.touch()
    target = split_manifest(source, tmp_path / "b" / "c" / "m.parquet", (1.0, 0.0, 0.0), seed=0)
    found = read_manifest(target)["uri"].to_pylist()
    assert found[1:3] == uris[1:3]
    assert all(Path(uri).is_absolute() and Path(uri).is_file() for uri in (found[0], found[3]))
    beside = split_manifest(source, source.with_name("split.parquet"), (1.0, 0.0, 0.0), seed=0)
    assert read_manifest(beside)["uri"].to_pylist() == uris  # a folder can be moved as a whole
