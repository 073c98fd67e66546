"""Every difference between a manifest and its files is found and named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.clips import KINDS, LONG_GOP, MJPEG, SHORT_GOP, clip_rows, cut_off

from echojepa.data.manifest import check_manifest
from echojepa.data.verify import find_problems


def rows_of_files(videos: Path, dicom: str, **changes: Any) -> Any:
    """A manifest of one clip of every kind and of a DICOM, all true but for the changes."""
    count = len(KINDS) + 1
    truth: dict[str, Any] = {
        "uri": [*(str(videos / kind.name) for kind in KINDS), dicom],
        "num_frames": [60] * (count - 1) + [30],
        "native_fps": [*(float(kind.rate) for kind in KINDS), 30.0],
        "height": [48] * (count - 1) + [240],
        "width": [64] * (count - 1) + [320],
    }
    for name, (row, value) in changes.items():
        truth[name][row] = value
    return check_manifest(clip_rows(count, **truth), "here")


def test_true_rows_have_no_problem(videos: Path, dicom: str) -> None:
    assert find_problems(rows_of_files(videos, dicom)) == []


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("num_frames", 61, "num_frames is 60, the manifest says 61"),
        ("num_frames", 59, "num_frames is 60, the manifest says 59"),
        ("height", 64, "height is 48, the manifest says 64"),
        ("width", 48, "width is 64, the manifest says 48"),
        ("native_fps", 25.0, "30.000 fps, the manifest says 25.000"),
        ("native_fps", 30.4, "30.000 fps, the manifest says 30.400"),
    ],
)
def test_one_difference(videos: Path, dicom: str, name: str, value: float, problem: str) -> None:
    table = rows_of_files(videos, dicom, **{name: (0, value)})
    assert find_problems(table) == [("c0", problem)]


def test_a_rate_within_one_percent_is_the_same(videos: Path, dicom: str) -> None:
    assert find_problems(rows_of_files(videos, dicom, native_fps=(0, 30000 / 1001))) == []
    assert find_problems(rows_of_files(videos, dicom, native_fps=(0, 30.2))) == []


def test_all_differences_of_all_clips(videos: Path, dicom: str) -> None:
    last = len(KINDS)
    table = rows_of_files(
        videos, dicom, num_frames=(last, 31), native_fps=(last, 60.0), height=(0, 1), width=(1, 2)
    )
    assert find_problems(table) == [
        ("c0", "height is 48, the manifest says 1"),
        ("c1", "width is 64, the manifest says 2"),
        (f"c{last}", "num_frames is 30, the manifest says 31"),
        (f"c{last}", "30.000 fps, the manifest says 60.000"),
    ]


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
    problems = find_problems(check_manifest(clip_rows(6, uri=uris), "here"))
    assert [clip for clip, _ in problems] == ["c1", "c2", "c3", "c4", "c5"]
    texts = dict(problems)
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
    rows = rows_of_files(videos, dicom, uri=(len(KINDS), str(cut)))
    assert [clip for clip, _ in find_problems(rows)] == [f"c{len(KINDS)}"]


def test_a_document_among_the_dicoms(videos: Path, dicom: str, tmp_path: Path) -> None:
    """A DICOM without pixels (a report, say) is one problem, not the end of the check."""
    import pydicom

    data = pydicom.dcmread(dicom)
    for keyword in ("PixelData", "Rows", "Columns", "NumberOfFrames", "FrameTime"):
        delattr(data, keyword)
    data.save_as(tmp_path / "report.dcm")
    rows = rows_of_files(videos, dicom, uri=(len(KINDS), str(tmp_path / "report.dcm")))
    assert [clip for clip, _ in find_problems(rows)] == [f"c{len(KINDS)}"]
    assert SHORT_GOP in KINDS
