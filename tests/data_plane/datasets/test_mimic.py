"""MIMIC-IV-Echo's list becomes a manifest of DICOM clips."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.public_sets import written_manifest

from echojepa.data.datasets.mimic import read_mimic
from echojepa.data.manifest.file import read_manifest
from echojepa.data.manifest.splits import split_manifest
from echojepa.errors import ManifestError
from echojepa.phantom import PhantomConfig, write_phantom


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four studies of two views by the phantom."""
    config = PhantomConfig(
        num_studies=4,
        size=32,
        num_frames=3,
        views=("A4C", "PSAX-PM"),
        follow_up_fraction=0.5,
        layout="mimic_iv_echo",
        dicom_fraction=1.0,
        avi_fraction=0.0,
        seed=4,
    )
    folder = tmp_path_factory.mktemp("mimic")
    write_phantom(config, folder)
    return folder


def test_rows_are_what_the_phantom_knows_of_its_clips(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "clips.parquet"
    sieve, rows = written_manifest(read_mimic(root), target)
    assert (sieve.num_good, sieve.num_bad) == (8, 0)
    truth = {str(root / r["uri"]): r for r in read_manifest(root / "manifest.parquet").to_pylist()}
    assert {row["uri"] for row in rows} == truth.keys()
    same = ("num_frames", "height", "width", "content_hash")
    for row in rows:
        known = truth[row["uri"]]
        assert {name: row[name] for name in same} == {name: known[name] for name in same}
        assert row["acquisition_datetime"].startswith(known["study_date"])
        assert row["population"] == "adult"
        assert [row[name] for name in ("view", "doppler", "split")] == [None] * 3
    for ours, theirs in (("patient_id", "patient_id"), ("study_id", "study_id")):
        pairs = {(row[ours], truth[row["uri"]][theirs]) for row in rows}
        assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs})
    assert len({row["patient_id"] for row in rows}) < len({row["study_id"] for row in rows})
    split = read_manifest(split_manifest(target, tmp_path / "split.parquet", (0.5, 0.25, 0.25), 0))
    assert split["split"].null_count == 0


def test_entries_that_cannot_be_used(root: Path, tmp_path: Path) -> None:
    lines = (root / "echo-record-list.csv").read_text().splitlines()
    other = tmp_path / "root"
    (other / "files").mkdir(parents=True)
    uri = lines[1].split(",")[-1]
    (other / uri).parent.mkdir(parents=True)
    (other / uri).write_bytes((root / uri).read_bytes())
    changed = [*lines[:3], lines[1], ",".join(["", *lines[4].split(",")[1:]])]
    (other / "echo-record-list.csv").write_text("\n".join(changed))
    sieve, rows = written_manifest(read_mimic(other), tmp_path / "clips.parquet")
    assert len(rows) == 1
    assert dict(sieve.kinds) == {"missing": 1, "listed_twice": 1, "no_name": 1}


def test_another_folder_is_refused(root: Path) -> None:
    with pytest.raises(ManifestError, match="not the folder of MIMIC-IV-Echo: it lacks echo-rec"):
        read_mimic(root / "files")
