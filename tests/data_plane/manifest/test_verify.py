"""Every difference between a manifest and its files is found and named."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.clips import KINDS, LONG_GOP, MJPEG, SHORT_GOP, clip_rows, cut_off

from echojepa.data.decode.frames import ReadConfig
from echojepa.data.manifest.file import write_manifest
from echojepa.data.manifest.verify import Judged, check_all_rows, chunks_of, verify_rows
from echojepa.errors import ManifestError

READ = ReadConfig(patience_seconds=0)
LAST = len(KINDS)


def rows_of_files(videos: Path, dicom: str, **changes: Any) -> pa.Table:
    """A manifest of one clip of every kind and of a DICOM, all true but for the changes."""
    count = len(KINDS) + 1
    truth: dict[str, Any] = {
        "uri": [*(str(videos / kind.name) for kind in KINDS), dicom],
        "num_frames": [60] * (count - 1) + [30],
        "native_fps": [*(float(kind.rate) for kind in KINDS), 30.0],
        "height": [48] * (count - 1) + [240],
        "width": [64] * (count - 1) + [320],
        "content_hash": [None] * count,
    }
    for name, (row, value) in changes.items():
        truth[name][row] = value
    truth["content_hash"] = pa.array(truth["content_hash"], pa.string())
    return clip_rows(count, **truth)


def judged(table: pa.Table, folder: Path) -> list[Judged]:
    """Every row of a manifest beside its problem."""
    path = write_manifest(table, folder / "manifest.parquet")
    return [one for rows in chunks_of(path) for one in verify_rows(READ, rows)]


def problems(table: pa.Table, folder: Path) -> dict[str, str]:
    """What is wrong, by clip."""
    return {row["clip_id"]: str(found) for row, found in judged(table, folder) if found}


def test_true_rows_have_no_problem_and_get_their_hash(
    videos: Path, dicom: str, tmp_path: Path
) -> None:
    found = judged(rows_of_files(videos, dicom), tmp_path)
    assert [problem for _, problem in found] == [None] * len(found)
    for row, _ in found:
        digest = hashlib.sha256(Path(row["uri"]).read_bytes()).hexdigest()
        assert row["content_hash"] == f"sha256:{digest}"


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("num_frames", 61, "num_frames is 60, the manifest says 61"),
        ("num_frames", 59, "num_frames is 60, the manifest says 59"),
        ("height", 64, "height is 48, the manifest says 64"),
        ("width", 48, "width is 64, the manifest says 48"),
        ("native_fps", 25.0, "native_fps is 30.000, the manifest says 25.000"),
        ("native_fps", 30.4, "native_fps is 30.000, the manifest says 30.400"),
    ],
)
def test_one_difference(
    videos: Path, dicom: str, tmp_path: Path, name: str, value: float, problem: str
) -> None:
    table = rows_of_files(videos, dicom, **{name: (0, value)})
    assert problems(table, tmp_path) == {"c0": f"manifest: differs: {problem}"}


def test_a_rate_within_one_percent_is_the_same(videos: Path, dicom: str, tmp_path: Path) -> None:
    for rate in (30000 / 1001, 30.2):
        assert problems(rows_of_files(videos, dicom, native_fps=(0, rate)), tmp_path) == {}


def test_a_file_that_has_changed_since_it_was_hashed(
    videos: Path, dicom: str, tmp_path: Path
) -> None:
    """A flipped bit in a picture decodes to another picture, without an error."""
    content = bytearray((videos / MJPEG.name).read_bytes())
    content[len(content) // 2] ^= 1
    flipped = tmp_path / MJPEG.name
    flipped.write_bytes(content)
    known = hashlib.sha256((videos / MJPEG.name).read_bytes()).hexdigest()
    row = KINDS.index(MJPEG)
    table = rows_of_files(
        videos, dicom, uri=(row, str(flipped)), content_hash=(row, f"sha256:{known}")
    )
    text = "manifest: changed: the content has changed since it was hashed"
    assert problems(table, tmp_path) == {f"c{row}": text}


def test_unreadable_files(videos: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.mp4"
    empty.write_bytes(b"")
    uris = [
        str(videos / LONG_GOP.name),
        str(tmp_path / "gone.mp4"),
        str(empty),
        str(cut_off(videos / MJPEG.name, tmp_path / "cut.avi", 0.5)),
        str(cut_off(videos / LONG_GOP.name, tmp_path / "cut.mp4", 0.5)),
        (tmp_path / "gone.mp4").as_uri(),
    ]
    texts = problems(clip_rows(6, uri=uris), tmp_path)
    assert list(texts) == ["c1", "c2", "c3", "c4", "c5"]
    assert texts["c1"] == "open: missing: no such file"
    assert texts["c2"] == "open: empty: the file has zero bytes"
    assert texts["c3"].startswith("decode: truncated: ")
    assert texts["c4"] == (
        "open: not_a_video: no readable DICOM, MP4, MOV, AVI, Matroska or WebM "
        "(FFmpeg: InvalidDataError)"
    )
    assert texts["c5"] == "open: missing: no such file"


def test_a_truncated_dicom(dicom: str, tmp_path: Path, videos: Path) -> None:
    """The header alone says 30 frames; "opens and walks each one" finds that they are gone."""
    cut = cut_off(Path(dicom), tmp_path / "cut.dcm", 0.9)
    rows = rows_of_files(videos, dicom, uri=(LAST, str(cut)))
    assert list(problems(rows, tmp_path)) == [f"c{LAST}"]


def test_a_document_among_the_dicoms(videos: Path, dicom: str, tmp_path: Path) -> None:
    """A DICOM without pixels (a report, say) is one problem, not the end of the check."""
    import pydicom

    data = pydicom.dcmread(dicom)
    for keyword in ("PixelData", "Rows", "Columns", "NumberOfFrames", "FrameTime"):
        delattr(data, keyword)
    data.save_as(tmp_path / "report.dcm")
    rows = rows_of_files(videos, dicom, uri=(LAST, str(tmp_path / "report.dcm")))
    assert list(problems(rows, tmp_path)) == [f"c{LAST}"]
    assert SHORT_GOP in KINDS


def test_a_file_that_probes_well_and_cannot_be_decoded(
    videos: Path, dicom: str, tmp_path: Path
) -> None:
    """Every packet is there; the last pictures are garbage. The last frame is decoded, so it shows.

    H.264 hides such damage, JPEG does not.
    """
    content = bytearray((videos / MJPEG.name).read_bytes())
    start = content.rfind(b"\xff\xd8\xff")  # of the last JPEG
    end = content.find(b"\xff\xd9", start)
    content[start + 2 : end] = bytes(end - start - 2)
    broken = tmp_path / MJPEG.name
    broken.write_bytes(content)
    row = KINDS.index(MJPEG)
    found = problems(rows_of_files(videos, dicom, uri=(row, str(broken))), tmp_path)
    assert list(found) == [f"c{row}"]
    assert found[f"c{row}"].startswith("decode: ")


def test_the_same_file_twice_is_found_without_opening_any(tmp_path: Path) -> None:
    table = clip_rows(4, uri=["a.mp4", "b.mp4", "a.mp4", "d.mp4"])
    path = write_manifest(table, tmp_path / "manifest.parquet")
    with pytest.raises(ManifestError, match="clips 'c0' and 'c2' name the same file a.mp4"):
        check_all_rows(path)
    good = write_manifest(clip_rows(4), tmp_path / "manifest.parquet")
    assert check_all_rows(good) == 4
