"""The reference's CSV files become manifests; whatever they lack is an error with its line."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.clips import HEIGHT, LONG_GOP, MJPEG, NTSC, NUM_FRAMES, WIDTH

from echojepa.data.decode.frames import ReadConfig
from echojepa.data.manifest.file import read_manifest, write_manifest
from echojepa.data.manifest.import_csv import CsvFiles, measure_rows, opened_csv
from echojepa.data.manifest.sieve import Sieve
from echojepa.data.manifest.verify import verify_rows
from echojepa.errors import ManifestError

READ = ReadConfig(patience_seconds=0)


@pytest.fixture
def folder(tmp_path: Path, videos: Path) -> Path:
    """Two videos (one with spaces in its path), a CSV of the reference, and the identities."""
    (tmp_path / "my clips").mkdir()
    shutil.copy(videos / NTSC.name, tmp_path / "my clips" / "a b.mp4")
    shutil.copy(videos / MJPEG.name, tmp_path / "c.avi")
    a, c = tmp_path / "my clips" / "a b.mp4", tmp_path / "c.avi"
    (tmp_path / "train.csv").write_text(f"{a} 55.5\n{c} 61\n")
    (tmp_path / "identities.csv").write_text(
        f"path,patient_id,study_id,view\n{c},p2,s2,\n{a},p1,s1,A4C\nunused.mp4,p3,s3,A2C\n"
    )
    return tmp_path


def convert(folder: Path, label: str | None = None) -> Path:
    """Import the CSV of a folder."""
    target = folder / "out" / "manifest.parquet"
    with opened_csv(CsvFiles(folder / "train.csv", folder / "identities.csv", label)) as lines:
        sieve = Sieve(lines.schema, folder / "out" / "rejected.parquet")
        judged = (measure_rows(READ, rows) for rows in lines.chunks())
        return write_manifest(sieve.good(judged), target)


def test_import(folder: Path) -> None:
    path = convert(folder, "lvef")
    assert path == folder / "out" / "manifest.parquet"
    first, second = read_manifest(path).to_pylist()
    assert first["uri"] == str(folder / "my clips" / "a b.mp4")
    assert first["native_fps"] == pytest.approx(30000 / 1001)
    assert (first["patient_id"], first["study_id"], first["view"]) == ("p1", "s1", "A4C")
    assert first["lvef"] == 55.5
    assert second["native_fps"] == 50.0
    assert (second["patient_id"], second["study_id"], second["view"]) == ("p2", "s2", None)
    assert second["lvef"] == 61.0
    for row in (first, second):
        assert (row["num_frames"], row["height"], row["width"]) == (NUM_FRAMES, HEIGHT, WIDTH)
        assert row["split"] is None
    assert first["clip_id"] != second["clip_id"]
    again = read_manifest(convert(folder, "lvef"))
    assert again["clip_id"].to_pylist() == [first["clip_id"], second["clip_id"]]


def test_without_a_label(folder: Path) -> None:
    """Pretraining CSVs hold zeros, or anything."""
    content = (folder / "train.csv").read_text()
    (folder / "train.csv").write_text(content.replace("61", "none"))
    table = read_manifest(convert(folder))
    assert len(table) == 2
    assert "lvef" not in table.column_names


def test_relative_paths_are_of_the_working_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "train.csv").write_text("c.avi 0\n")
    (folder / "identities.csv").write_text("path,patient_id,study_id\nc.avi,p,s\n")
    (row,) = read_manifest(convert(folder)).to_pylist()
    assert row["uri"] == str(folder / "c.avi")
    assert row["view"] is None


def test_urls_stay(folder: Path) -> None:
    uri = (folder / "c.avi").as_uri()
    (folder / "train.csv").write_text(f"{uri} 0\n")
    (folder / "identities.csv").write_text(f"path,patient_id,study_id\n{uri},p,s\n")
    (row,) = read_manifest(convert(folder)).to_pylist()
    assert row["uri"] == uri
    assert row["num_frames"] == NUM_FRAMES


def refusal(folder: Path, label: str | None = None) -> str:
    """The message with which an import is refused; nothing may have been written."""
    with pytest.raises(ManifestError) as caught:
        convert(folder, label)
    assert not (folder / "out").exists()
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.remedy
    return text


@pytest.mark.parametrize("name", ["train.csv", "identities.csv"])
def test_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert refusal(folder) == f"no such file [{folder / name}]. Check the path."


@pytest.mark.parametrize("name", ["train.csv", "identities.csv"])
def test_a_file_that_is_no_text(folder: Path, name: str) -> None:
    shutil.copy(folder / "c.avi", folder / name)
    assert str(folder / name) in refusal(folder)


def test_a_line_without_a_label(folder: Path) -> None:
    with (folder / "train.csv").open("a") as file:
        file.write("d.mp4\n")
    assert refusal(folder).startswith(f"line 3 is not `path label` [{folder / 'train.csv'}].")


def test_a_video_without_identity(folder: Path) -> None:
    with (folder / "train.csv").open("a") as file:
        file.write("d.mp4 1\n")
    message = refusal(folder)
    assert message.startswith("line 3 names a video that has no row in identities.csv [")
    assert "patient_id" in message


def test_line_numbers_are_those_of_the_file(folder: Path) -> None:
    content = (folder / "train.csv").read_text()
    (folder / "train.csv").write_text(f"\n{content}\n\nd.mp4 1\n")
    assert refusal(folder).startswith("line 6 names a video")
    (folder / "train.csv").write_text(f"\n{content}\n\nd.mp4\n")
    assert refusal(folder).startswith("line 6 is not `path label`")


def test_blank_lines_do_not_matter(folder: Path) -> None:
    content = (folder / "train.csv").read_text()
    (folder / "train.csv").write_text("\n" + content.replace("\n", "  \n\n"))
    assert read_manifest(convert(folder, "lvef"))["lvef"].to_pylist() == [55.5, 61.0]


def test_a_video_that_cannot_be_read_is_listed_with_its_reason(folder: Path) -> None:
    (folder / "c.avi").write_bytes(b"")
    (row,) = read_manifest(convert(folder)).to_pylist()
    assert row["uri"].endswith("a b.mp4")
    (bad,) = pq.read_table(folder / "out" / "rejected.parquet").to_pylist()
    assert (bad["uri"], bad["stage"], bad["kind"]) == (str(folder / "c.avi"), "open", "empty")
    assert bad["message"] == "the file has zero bytes"


def test_no_video_can_be_read(folder: Path) -> None:
    for name in ("c.avi", "my clips/a b.mp4"):
        (folder / name).write_bytes(b"")
    with pytest.raises(ManifestError, match="the manifest has no rows"):
        convert(folder)
    assert not (folder / "out" / "manifest.parquet").exists()
    assert pq.read_metadata(folder / "out" / "rejected.parquet").num_rows == 2


def test_an_import_verifies(folder: Path) -> None:
    """What was written is what the files hold, hashes included."""
    rows = read_manifest(convert(folder, "lvef")).to_pylist()
    assert [problem for _, problem in verify_rows(READ, rows)] == [None, None]
    digest = hashlib.sha256((folder / "c.avi").read_bytes()).hexdigest()
    assert rows[1]["content_hash"] == f"sha256:{digest}"
    assert rows[1]["duration_seconds"] == pytest.approx(NUM_FRAMES / 50)


def test_a_byte_order_mark_is_no_column_name(folder: Path) -> None:
    """Spreadsheets write one."""
    for name in ("train.csv", "identities.csv"):
        path = folder / name
        path.write_text(path.read_text(), encoding="utf-8-sig")
    assert read_manifest(convert(folder, "lvef"))["patient_id"].to_pylist() == ["p1", "p2"]


def test_a_video_with_two_identities(folder: Path) -> None:
    with (folder / "identities.csv").open("a") as file:
        file.write(f"{folder / 'c.avi'},p9,s9,\n")
    assert refusal(folder).startswith(f"the video {folder / 'c.avi'} has several rows [")


def test_a_label_that_is_no_number(folder: Path) -> None:
    content = (folder / "train.csv").read_text()
    (folder / "train.csv").write_text(content.replace("61", "low"))
    message = refusal(folder, "lvef")
    assert message.startswith("the label of line 2 is 'low', not a number [")
    assert "--label" in message


def test_identities_without_their_columns(folder: Path) -> None:
    (folder / "identities.csv").write_text("path,patient\nc.avi,p\n")
    message = refusal(folder)
    assert message.startswith("the header lacks patient_id, study_id [")
    assert str(folder / "identities.csv") in message
    (folder / "identities.csv").write_text("")
    assert refusal(folder).startswith("the header lacks path, patient_id, study_id [")


def test_identities_that_are_only_a_header(folder: Path) -> None:
    (folder / "identities.csv").write_text("path,patient_id,study_id\n")
    assert refusal(folder).startswith("line 1 names a video that has no row in identities.csv")


@pytest.mark.parametrize("cells", [",s2", "p2,", ","])
def test_an_empty_identity(folder: Path, cells: str) -> None:
    """Two clips without a patient must not become clips of one patient."""
    content = (folder / "identities.csv").read_text()
    (folder / "identities.csv").write_text(content.replace(",p2,s2,", f",{cells},"))
    assert refusal(folder).startswith("line 2 names a video without patient or study in ")


@pytest.mark.parametrize(("cells", "count"), [("p2", 2), ("p2,s2", 3), ("p2,s2,A4C,x", 5)])
def test_a_row_of_another_length(folder: Path, cells: str, count: int) -> None:
    """It is named by its number: what stands in it is nobody's business."""
    content = (folder / "identities.csv").read_text()
    (folder / "identities.csv").write_text(content.replace(",p2,s2,", f",{cells}"))
    message = refusal(folder)
    assert message.startswith(f"line 2 has {count} cells, the header 4 [")
    assert "p2" not in message.split("[")[0]


def test_the_same_video_twice(folder: Path) -> None:
    content = (folder / "train.csv").read_text()
    (folder / "train.csv").write_text(content + content)
    assert "lines 1 and 3 name the same video" in refusal(folder)


def test_an_empty_file(folder: Path) -> None:
    (folder / "train.csv").write_text("\n\n")
    with pytest.raises(ManifestError):
        convert(folder)
    assert LONG_GOP.name not in [path.name for path in folder.iterdir()]
