"""EchoNet-Dynamic's list becomes a manifest, or says what is wrong with it."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.public_sets import write_dynamic, written_manifest

from echojepa.data.datasets.echonet_dynamic import read_echonet_dynamic
from echojepa.data.manifest.file import read_manifest
from echojepa.errors import ManifestError

Lines = list[dict[str, str]]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dynamic(tmp_path_factory.mktemp("published"))


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    """A copy whose list a test may change."""
    return Path(shutil.copytree(published, tmp_path / "root"))


def change_list(root: Path, change: Callable[[Lines], object]) -> Lines:
    """Change the lines of the list; returns them."""
    path = root / "FileList.csv"
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    change(lines)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return lines


def rejected(root: Path) -> dict[str, tuple[str, str]]:
    """Stage and kind of what is wrong, by clip."""
    target = root / "manifest.parquet"
    written_manifest(read_echonet_dynamic(root), target)
    table = pq.read_table(target.with_suffix(".rejected.parquet")).to_pylist()
    return {row["clip_id"]: (row["stage"], row["kind"]) for row in table}


def test_rows_are_what_the_phantom_knows_of_its_videos(published: Path, tmp_path: Path) -> None:
    known = read_manifest(published / "manifest.parquet").to_pylist()
    truth = {row["clip_id"]: row for row in known}
    target = tmp_path / "elsewhere" / "manifest.parquet"
    sieve, rows = written_manifest(read_echonet_dynamic(published), target)
    assert (sieve.num_good, sieve.num_bad, sieve.notes.total()) == (6, 0, 0)
    assert {row["clip_id"] for row in rows} == truth.keys()
    same = ("num_frames", "height", "width", "view", "doppler", "split", "content_hash")
    for row in rows:
        theirs = truth[row["clip_id"]]
        assert {name: row[name] for name in same} == {name: theirs[name] for name in same}
        assert row["native_fps"] == pytest.approx(theirs["native_fps"], rel=1e-3)
        assert [row[n] for n in ("lvef", "esv_ml", "edv_ml")] == pytest.approx(
            [theirs[n] for n in ("lvef", "esv_ml", "edv_ml")]
        )
        assert row["patient_id"] == row["study_id"] == row["clip_id"]
        assert row["population"] == "adult" and Path(row["uri"]).is_absolute()
    assert {row["split"] for row in rows} == {"train", "val", "test"}


def test_names_may_end_in_avi(root: Path) -> None:
    def suffixed(lines: Lines) -> None:
        for line in lines[:3]:
            line["FileName"] += ".avi"

    stems = {Path(line["FileName"]).stem for line in change_list(root, suffixed)}
    _, rows = written_manifest(read_echonet_dynamic(root), root / "manifest.parquet")
    assert {row["clip_id"] for row in rows} == stems


def test_the_file_is_right_and_differences_are_counted(root: Path) -> None:
    def misstated(lines: Lines) -> None:
        lines[0]["NumberOfFrames"] = "5"
        lines[1].update(NumberOfFrames="3", FrameHeight="112", FPS="1000")
        lines[2]["FPS"] = str(float(lines[2]["FPS"]) + 0.4)  # rounded to a whole number
        lines[3]["FPS"] = ""

    lines = change_list(root, misstated)
    sieve, rows = written_manifest(read_echonet_dynamic(root), root / "manifest.parquet")
    by_clip = {row["clip_id"]: row for row in rows}
    assert {by_clip[line["FileName"]]["num_frames"] for line in lines} == {4}
    assert by_clip[lines[1]["FileName"]]["height"] == 32
    assert dict(sieve.notes) == {
        "num_frames is not what the list says": 2,
        "height is not what the list says": 1,
        "native_fps is not what the list says": 1,
    }


def test_entries_that_cannot_be_used_are_rejected_with_reasons(root: Path) -> None:
    def spoilt(lines: Lines) -> None:
        lines[0]["EF"] = ""
        lines[1]["EF"] = "0.55"  # a share, not a percentage
        lines[2]["Split"] = "EXTERNAL"
        lines[3]["ESV"] = "small"
        lines.append({**lines[5], "FileName": "nowhere"})
        lines.append({**lines[5], "FileName": "../Videos/other"})

    names = [line["FileName"] for line in change_list(root, spoilt)]
    (root / "Videos" / f"{names[4]}.avi").write_bytes(b"no video")
    assert rejected(root) == {
        names[0]: ("list", "no_label"),
        names[1]: ("list", "bad_label"),
        names[2]: ("list", "unknown_split"),
        names[3]: ("list", "bad_label"),
        names[4]: ("open", "not_a_video"),
        "nowhere": ("open", "missing"),
        "../Videos/other": ("list", "no_name"),
    }


def test_of_a_video_listed_twice_one_row_stays_if_the_list_agrees_with_itself(root: Path) -> None:
    def doubled(lines: Lines) -> None:
        lines.append(dict(lines[0]))
        lines.append({**lines[1], "EF": "50"})

    names = [line["FileName"] for line in change_list(root, doubled)]
    sieve, rows = written_manifest(read_echonet_dynamic(root), root / "manifest.parquet")
    kept = [row["clip_id"] for row in rows]
    assert kept.count(names[0]) == 1 and names[1] not in kept
    assert sieve.num_good == 5 and dict(sieve.kinds) == {"listed_twice": 3}


def test_a_patient_is_never_printed_by_a_reason(root: Path) -> None:
    change_list(root, lambda lines: lines[0].update(EF="Jane Doe", Split="Jane Doe"))
    rejected(root)
    table = pq.read_table(root / "manifest.rejected.parquet").to_pylist()
    assert "Jane" not in str(table)


def test_another_folder_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such folder .*nowhere.*FileList.csv, Videos"):
        read_echonet_dynamic(tmp_path / "nowhere")
    shutil.rmtree(root / "Videos")
    with pytest.raises(ManifestError, match="not the folder of EchoNet-Dynamic: it lacks Videos"):
        read_echonet_dynamic(root)


def test_another_list_is_refused_and_both_sets_of_columns_are_named(root: Path) -> None:
    (root / "FileList.csv").write_text("FileName,EjectionFraction,Split\na,50,TRAIN\n")
    with pytest.raises(ManifestError) as caught:
        read_echonet_dynamic(root)
    message = str(caught.value)
    assert message.startswith("the list lacks EF, ESV, EDV, FrameHeight, FrameWidth, FPS, NumberOf")
    assert "it has FileName, EjectionFraction, Split" in message
    assert "published: FileName, EF, ESV, EDV," in message


def test_a_list_without_lines_or_with_a_torn_one_is_refused(root: Path) -> None:
    path = root / "FileList.csv"
    whole = path.read_text()
    path.write_text("")
    with pytest.raises(ManifestError, match="it has no header"):
        read_echonet_dynamic(root)
    path.write_text(whole[: whole.rindex(",")])
    with pytest.raises(ManifestError, match="line 7 has 8 cells, the header 9"):
        read_echonet_dynamic(root)
    path.write_text(whole.splitlines()[0])
    with pytest.raises(ManifestError, match="the manifest has no rows"):
        written_manifest(read_echonet_dynamic(root), root / "manifest.parquet")
