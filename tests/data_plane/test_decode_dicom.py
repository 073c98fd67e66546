"""Ultrasound DICOM: the real clip that ships with pydicom, and everything that can be wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from support.clips import LONG_GOP, cut_off, error_of, outcome, probe, read_frames, written
from support.dicoms import uncompressed, with_header

from echojepa.data.decode.timeline import VideoInfo


def test_dicom_probe(dicom: str) -> None:
    info = probe(dicom)
    assert info == VideoInfo(30, pytest.approx(1000 / 33.333), pytest.approx(0.99999), 240, 320)
    assert probe(Path(dicom).as_uri()) == info


def test_dicom_frames_equal_pydicoms(dicom: str) -> None:
    expected = pydicom.dcmread(dicom).pixel_array
    assert expected.shape == (30, 240, 320, 3)
    for indices in ([0], [29], [7, 7, 8, 21, 21], list(range(30))):
        frames = read_frames(dicom, indices, num_promised=30)
        assert frames.dtype == np.uint8
        assert np.array_equal(frames, expected[indices])
    assert np.array_equal(read_frames(Path(dicom).as_uri(), [3, 3, 29]), expected[[3, 3, 29]])


@pytest.mark.parametrize("name", ["clip.DCM", "IM_0042", "clip.mp4", "1.2.840.113619"])
def test_a_dicom_is_one_whatever_its_name(dicom: str, tmp_path: Path, name: str) -> None:
    """FFmpeg takes a DICOM of JPEGs for a raw stream of 19 pictures at 25 fps."""
    shutil.copy(dicom, tmp_path / name)
    (tmp_path / "link").symlink_to(tmp_path / name)
    expected = pydicom.dcmread(dicom).pixel_array
    for path in (tmp_path / name, tmp_path / "link"):
        for uri in (str(path), path.as_uri()):
            assert probe(uri) == probe(dicom)
            assert np.array_equal(read_frames(uri, [0, 29]), expected[[0, 29]])


def test_grey_dicom_becomes_rgb(dicom: str, tmp_path: Path) -> None:
    data = pydicom.dcmread(dicom)
    grey = data.pixel_array[..., 0].copy()
    path = tmp_path / "grey.dcm"
    uncompressed(dicom, grey, "MONOCHROME2").save_as(path)
    assert np.array_equal(read_frames(str(path), [2, 9])[..., 1], grey[[2, 9]])
    still = tmp_path / "still.dcm"
    one = uncompressed(dicom, grey[:1], "MONOCHROME2")
    del one.FrameTime
    one.save_as(still)
    assert probe(str(still)) == VideoInfo(1, 1.0, 1.0, 240, 320)
    assert np.array_equal(read_frames(str(still), [0, 0])[..., 2], grey[[0, 0]])


@pytest.mark.parametrize(
    ("header", "rate"),
    [
        ({"FrameTime": 20, "CineRate": 25}, 50.0),
        ({"FrameTime": None, "CineRate": 25, "RecommendedDisplayFrameRate": 30}, 25.0),
        ({"FrameTime": None, "RecommendedDisplayFrameRate": 30}, 30.0),
        ({"FrameTime": 0, "CineRate": 25}, 25.0),
    ],
    ids=str,
)
def test_dicom_rate(dicom: str, tmp_path: Path, header: dict[str, float], rate: float) -> None:
    assert probe(str(with_header(dicom, tmp_path, header))).native_fps == rate


def test_dicom_without_any_rate(dicom: str, tmp_path: Path) -> None:
    path = with_header(dicom, tmp_path, {}, "FrameTime", "CineRate")
    assert error_of(lambda: probe(str(path)), path) == ("open", "no_frame_rate")


def test_16_bit_dicom(dicom: str, tmp_path: Path) -> None:
    data = pydicom.dcmread(dicom)
    deep = data.pixel_array[..., 0].astype(np.uint16) * 100
    path = tmp_path / "hidden.dcm"
    uncompressed(dicom, deep, "MONOCHROME2").save_as(path)
    assert error_of(lambda: read_frames(str(path), [0]), path) == ("decode", "unsupported")


@pytest.mark.parametrize("photometric", ["PALETTE COLOR", "MONOCHROME1", ""])
def test_dicom_with_other_colours(dicom: str, tmp_path: Path, photometric: str) -> None:
    path = with_header(dicom, tmp_path, {"PhotometricInterpretation": photometric})
    assert error_of(lambda: read_frames(str(path), [0]), path) == ("decode", "unsupported")


def test_dicom_beyond_the_end(dicom: str) -> None:
    for indices, promised in (([30], 30), ([0], 31)):
        with pytest.raises(Exception) as caught:
            read_frames(dicom, indices, num_promised=promised)
        assert str(caught.value) == "decode: truncated: 30 of 31 frames are there"


@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_truncated_dicom(dicom: str, tmp_path: Path, part: float) -> None:
    path = cut_off(Path(dicom), tmp_path / "hidden.dcm", part)
    error = error_of(lambda: read_frames(str(path), range(30), num_promised=30), path)
    assert error[0] == "decode"
    assert error[1] in {"truncated", "damaged"}
    url = error_of(lambda: read_frames(path.as_uri(), range(30), num_promised=30), path)
    assert url == error


def test_probe_counts_the_frames_of_a_dicom(dicom: str, tmp_path: Path) -> None:
    """`probe` "counts frames, never trusts a header"."""
    for part in (0.5, 0.9):
        path = cut_off(Path(dicom), tmp_path / "hidden.dcm", part)
        assert error_of(lambda path=path: probe(str(path)), path) == ("decode", "truncated")


def test_dicom_without_pixels(dicom: str, tmp_path: Path) -> None:
    """Reports and measurements lie beside the videos, under the same suffix."""
    gone = ("PixelData", "Rows", "Columns", "NumberOfFrames", "BitsAllocated", "FrameTime")
    path = with_header(dicom, tmp_path, {}, *gone)
    assert error_of(lambda: read_frames(str(path), [0]), path)[0] in {"open", "decode"}
    assert error_of(lambda: probe(str(path)), path)[0] == "open"


@pytest.mark.parametrize("keyword", ["NumberOfFrames", "BitsAllocated", "Rows", "SamplesPerPixel"])
def test_dicom_with_an_empty_field(dicom: str, tmp_path: Path, keyword: str) -> None:
    path = with_header(dicom, tmp_path, {keyword: None})
    stage, kind = error_of(lambda: read_frames(str(path), [0, 29]), path)
    assert stage in {"open", "decode"}
    assert kind in {"not_a_video", "damaged", "frame_count_mismatch", "unsupported"}
    assert isinstance(outcome(lambda: probe(str(path))), (VideoInfo, str))


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"IS\x02\x0030", b"IS\x02\x00xy"), (b"DS\x06\x0033.333", b"DS\x06\x00a.bcde")],
    ids=["NumberOfFrames", "FrameTime"],
)
def test_dicom_with_a_field_that_is_no_number(
    dicom: str, tmp_path: Path, before: bytes, after: bytes
) -> None:
    content = Path(dicom).read_bytes()
    assert before in content
    path = written(tmp_path / "hidden.dcm", content.replace(before, after))
    assert error_of(lambda: probe(str(path)), path)[0] == "open"


def test_a_video_named_dicom_is_a_video(videos: Path, tmp_path: Path) -> None:
    path = tmp_path / "clip.dcm"
    shutil.copy(videos / LONG_GOP.name, path)
    assert probe(str(path)) == probe(str(videos / LONG_GOP.name))
