"""EchoNet-Pediatric: two lists, people who come in both, and folds that must be named."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.public_sets import CHILD, write_pediatric, written_manifest

from echojepa.data.datasets.echonet_pediatric import (
    PROTOCOLS,
    Folds,
    choose_folds,
    read_echonet_pediatric,
)
from echojepa.errors import ManifestError

TEN = {
    "A4C": [CHILD.format(name=f"CR{n}-CR9{n}-000001.avi", fold=n) for n in range(10)],
    "PSAX": [CHILD.format(name="CR3-CR93-000007.avi", fold=3)],
}


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A child per fold; the one in fold 3 with both views."""
    return write_pediatric(tmp_path_factory.mktemp("ten"), TEN)


@pytest.mark.parametrize(
    ("protocol", "folds", "val", "test"),
    [
        ("cardiobench", None, {"1"}, {"0"}),
        ("echojepa", None, {"8"}, {"9"}),
        (None, "test=0, val=1,test=4", {"1"}, {"0", "4"}),
    ],
)
def test_splits_are_the_folds_of_the_protocol(
    ten: Path,
    tmp_path: Path,
    protocol: str | None,
    folds: str | None,
    val: set[str],
    test: set[str],
) -> None:
    listing = read_echonet_pediatric(ten, choose_folds(protocol, folds))
    _, rows = written_manifest(listing, tmp_path / "manifest.parquet")
    by_split: dict[str, set[str]] = {}
    for row in rows:
        by_split.setdefault(row["split"], set()).add(str(row["fold"]))
    everything = set(map(str, range(10)))
    assert by_split == {"train": everything - val - test, "val": val, "test": test}


def test_a_child_and_a_study_are_the_same_in_both_views(ten: Path, tmp_path: Path) -> None:
    listing = read_echonet_pediatric(ten, PROTOCOLS["echojepa"])
    sieve, rows = written_manifest(listing, tmp_path / "manifest.parquet")
    assert (sieve.num_good, sieve.num_bad) == (11, 0)
    four, short = (
        next(row for row in rows if row["clip_id"] == f"CR3-CR93-{number}")
        for number in ("000001", "000007")
    )
    assert (four["view"], short["view"]) == ("A4C", "PSAX")
    for name, value in {
        "patient_id": "CR3",
        "study_id": "CR3-CR93",
        "population": "paediatric",
        "doppler": "none",
        "lvef": 60.5,
        "sex": "F",
        "age": 7.0,
        "age_band": "06-11",
        "weight_kg": 24.5,
        "height_cm": 120.0,
        "num_frames": 3,
    }.items():
        assert four[name] == short[name] == value, name
    assert four["uri"].endswith("A4C/Videos/CR3-CR93-000001.avi")
    assert short["uri"].endswith("PSAX/Videos/CR3-CR93-000007.avi")


def test_what_is_not_known_of_a_child_is_null_and_the_impossible_is_counted(tmp_path: Path) -> None:
    lines = ["A-S-1.avi,55,,,NaN,,2", "B-S-1.avi,55,M,-1,heavy,9999,2"]
    listing = read_echonet_pediatric(
        write_pediatric(tmp_path / "root", {"A4C": lines}), PROTOCOLS["echojepa"]
    )
    sieve, rows = written_manifest(listing, tmp_path / "manifest.parquet")
    unknown = ("age", "age_band", "weight_kg", "height_cm")
    assert [[row[name] for name in unknown] for row in rows] == [[None] * 4] * 2
    assert [row["sex"] for row in rows] == [None, "M"]
    assert dict(sieve.notes) == {
        f"{name} is impossible and left out": 1 for name in ("Age", "Weight", "Height")
    }


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("B-S-1.avi,,F,7,24,120,2", "no_label"),
        ("B-S-1.avi,55,F,7,24,120,10", "unknown_split"),
        ("B-S-1.avi,55,F,7,24,120,TRAIN", "unknown_split"),
        ("B-S-1.avi,55,F,7,24,120,1.5", "unknown_split"),
        ("B1.avi,55,F,7,24,120,2", "no_patient"),
        ("B-S-x.avi,55,F,7,24,120,2", "no_patient"),
        (",55,F,7,24,120,2", "no_name"),
    ],
)
def test_entries_that_cannot_be_used(tmp_path: Path, line: str, kind: str) -> None:
    root = write_pediatric(tmp_path / "root", {"A4C": ["A-S-1.avi,55,F,7,24,120,2", line]})
    listing = read_echonet_pediatric(root, PROTOCOLS["echojepa"])
    sieve, rows = written_manifest(listing, tmp_path / "manifest.parquet")
    assert dict(sieve.kinds) == {kind: 1}
    assert [row["patient_id"] for row in rows] == ["A"]


def test_a_video_in_both_views_is_neither(tmp_path: Path) -> None:
    both = "B-S-1.avi,55,F,7,24,120,2"
    lists = {"A4C": ["A-S-1.avi,55,F,7,24,120,2", both], "PSAX": [both]}
    root = write_pediatric(tmp_path / "root", lists)
    listing = read_echonet_pediatric(root, PROTOCOLS["echojepa"])
    sieve, _ = written_manifest(listing, tmp_path / "manifest.parquet")
    assert dict(sieve.kinds) == {"listed_twice": 2}


def test_a_child_in_two_splits_is_refused(tmp_path: Path) -> None:
    lines = ["A-S-1.avi,55,F,7,24,120,2", "A-S-2.avi,55,F,7,24,120,9"]
    root = write_pediatric(tmp_path / "root", {"A4C": lines})
    target = tmp_path / "manifest.parquet"
    with pytest.raises(ManifestError, match="patient 'A' is in two splits"):
        written_manifest(read_echonet_pediatric(root, PROTOCOLS["echojepa"]), target)
    assert not target.exists()


@pytest.mark.parametrize(
    ("protocol", "folds", "message"),
    [
        (None, None, "the data set has folds, and nothing says which are val and test"),
        ("echojepa", "test=0,val=1", "two things say which are val and test"),
        ("EchoJEPA-L", None, "there is no protocol 'EchoJEPA-L'"),
        (None, "test=3,val=3", "fold 3 is both val and test"),
        (None, "test=0", "no fold is val"),
        (None, "val=0", "no fold is test"),
        (None, "test=10,val=1", "'test=10' is not val or test, =, and a fold from 0 to 9"),
        (None, "train=2,val=1,test=0", "'train=2' is not val or test"),
        (None, "", "'' is not val or test"),
    ],
)
def test_folds_that_are_not_named_well(
    protocol: str | None, folds: str | None, message: str
) -> None:
    with pytest.raises(ManifestError) as caught:
        choose_folds(protocol, folds)
    assert str(caught.value).startswith(message)
    assert "cardiobench, echojepa" in str(caught.value)


def test_the_protocols_test_on_what_the_other_trains_on() -> None:
    one, other = PROTOCOLS.values()
    assert {one.split_of(fold) for fold in other.test} == {"train"}
    assert {other.split_of(fold) for fold in one.test} == {"train"}
    assert Folds(frozenset({2}), frozenset({3})).split_of(2) == "val"


def test_another_folder_is_refused(ten: Path) -> None:
    folds = PROTOCOLS["echojepa"]
    with pytest.raises(ManifestError, match="lacks A4C/FileList.csv, A4C/Videos, PSAX/FileList"):
        read_echonet_pediatric(ten / "A4C", folds)
