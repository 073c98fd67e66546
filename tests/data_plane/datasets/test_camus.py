"""CAMUS becomes a manifest, and its NIfTI sequences videos."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.clips import read_frames
from support.public_sets import PATIENTS, READ, sequence, write_camus, written_manifest

from echojepa.data.datasets.camus import read_camus
from echojepa.data.manifest.verify import chunks_of, verify_rows
from echojepa.errors import ManifestError, StorageError


def kinds(root: Path, folder: Path) -> dict[str, int]:
    """How often each problem came up, in a manifest written to `folder`."""
    sieve, _ = written_manifest(read_camus(root, folder / "videos"), folder / "manifest.parquet")
    return dict(sieve.kinds)


def test_rows_and_videos(tmp_path: Path) -> None:
    root = write_camus(tmp_path / "root")
    target = tmp_path / "out" / "manifest.parquet"
    sieve, rows = written_manifest(read_camus(root, tmp_path / "out" / "videos"), target)
    assert (sieve.num_good, sieve.num_bad, sieve.notes.total()) == (6, 0, 0)
    by_clip = {row["clip_id"]: row for row in rows}
    assert by_clip.keys() == {f"{p}_{view}" for p in PATIENTS.values() for view in ("2CH", "4CH")}
    assert [row["view"] for row in rows] == ["A2C", "A4C"] * 3
    assert [row["split"] for row in rows] == ["train", "train", "val", "val", "test", "test"]
    row = by_clip["patient0002_4CH"]
    for name, value in {
        "patient_id": "patient0002",
        "study_id": "patient0002",
        "uri": str(tmp_path / "out" / "videos" / "patient0002_4CH.mp4"),
        "num_frames": 5,
        "native_fps": 48.4,
        "height": 30,
        "width": 40,
        "doppler": "none",
        "population": "adult",
        "lvef": 54.0,
        "sex": "F",
        "age": 56.0,
        "age_band": "40-59",
        "image_quality": "Good",
        "ed_frame": 0,
        "es_frame": 4,
    }.items():
        assert row[name] == value, name
    shown = read_frames(row["uri"], range(5))
    assert np.array_equal(shown, np.repeat(sequence(11)[..., None], 3, axis=3))
    checked = [one for chunk in chunks_of(target) for one in verify_rows(READ, chunk)]
    assert [problem for _, problem in checked] == [None] * 6


def test_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    root = write_camus(tmp_path / "root")
    listing = read_camus(root, tmp_path / "videos")
    _, first = written_manifest(listing, tmp_path / "manifest.parquet")
    _, again = written_manifest(listing, tmp_path / "manifest.parquet")
    assert first == again
    assert {path.suffix for path in (tmp_path / "videos").iterdir()} == {".mp4"}


@pytest.mark.parametrize(
    ("name", "fact", "kind"),
    [
        ("EF", None, "no_label"),
        ("EF", "nan", "no_label"),
        ("EF", "?", "bad_label"),
        ("FrameRate", None, "no_label"),
        ("FrameRate", "0", "bad_label"),
    ],
)
def test_facts_that_a_row_needs(tmp_path: Path, name: str, fact: str | None, kind: str) -> None:
    root = write_camus(tmp_path / "root")
    folder = root / "database_nifti" / "patient0002"
    spoilt = write_camus(tmp_path / "spoilt", **{name: fact})
    cfg = spoilt / "database_nifti" / "patient0002" / "Info_4CH.cfg"
    (folder / "Info_4CH.cfg").write_text(cfg.read_text())
    assert kinds(root, tmp_path) == {kind: 1}
    (table,) = pq.read_table(tmp_path / "manifest.rejected.parquet").to_pylist()
    assert table["clip_id"] == "patient0002_4CH" and name in table["message"]
    assert not (tmp_path / "videos" / "patient0002_4CH.mp4").exists()


def test_files_and_lists_that_do_not_fit(tmp_path: Path) -> None:
    root = write_camus(tmp_path / "root")
    first, second, third = (root / "database_nifti" / p for p in PATIENTS.values())
    (first / "Info_2CH.cfg").unlink()
    (first / "patient0001_4CH_half_sequence.nii.gz").unlink()
    (second / "patient0002_2CH_half_sequence.nii.gz").write_bytes(b"no NIfTI")
    (root / "database_split" / "subgroup_testing.txt").write_text("patient0002\n\n")
    stranger = root / "database_nifti" / "patient0004"
    third.rename(stranger)
    for file in list(stranger.iterdir()):
        file.rename(stranger / file.name.replace("patient0003", "patient0004"))
    with pytest.raises(ManifestError, match="the manifest has no rows"):
        written_manifest(read_camus(root, tmp_path / "videos"), tmp_path / "manifest.parquet")
    table = pq.read_table(tmp_path / "manifest.rejected.parquet").to_pylist()
    assert [(row["clip_id"][7:], row["kind"]) for row in table] == [
        ("0001_2CH", "no_label"),
        ("0001_4CH", "missing"),
        ("0002_2CH", "listed_twice"),
        ("0002_4CH", "listed_twice"),
        ("0002_2CH", "listed_twice"),
        ("0002_4CH", "listed_twice"),
        ("0004_2CH", "no_split"),
        ("0004_4CH", "no_split"),
    ]


def test_a_list_of_frames_that_is_wrong_is_counted(tmp_path: Path) -> None:
    root = write_camus(tmp_path / "root", NbFrame="18", Age="560")
    sieve, rows = written_manifest(read_camus(root, tmp_path / "v"), tmp_path / "manifest.parquet")
    assert {row["num_frames"] for row in rows} == {5}
    assert {row["age_band"] for row in rows} == {None}
    assert dict(sieve.notes) == {
        "num_frames is not what the list says": 6,
        "Age is impossible and left out": 6,
    }


def test_another_folder_is_refused(tmp_path: Path) -> None:
    root = write_camus(tmp_path / "root")
    with pytest.raises(ManifestError, match="not the folder of CAMUS: it lacks database_nifti"):
        read_camus(root / "database_nifti", tmp_path)


def test_a_place_that_cannot_be_written_stops_the_job(tmp_path: Path) -> None:
    root = write_camus(tmp_path / "root")
    (tmp_path / "videos").write_text("a file")
    with pytest.raises(StorageError, match="no video can be written"):
        written_manifest(read_camus(root, tmp_path / "videos"), tmp_path / "manifest.parquet")


def test_without_nibabel_the_remedy_is_named(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['nibabel'] = None\n"
        "from pathlib import Path\n"
        "from echojepa.data.datasets.camus import read_camus\n"
        "from echojepa.errors import exit_codes\n"
        "with exit_codes(): read_camus(Path('root'), Path('videos'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "pip install 'echojepa[camus]'" in done.stderr
