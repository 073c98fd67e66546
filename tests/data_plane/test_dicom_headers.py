"""Headers of DICOM that can't be true, or say that the file is something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import get_decoder
from pydicom.tag import Tag
from pydicom.uid import MPEG4HP41, JPEGLosslessSV1, RLELossless
from support.clips import error_of, probe, read_frames
from support.dicoms import uncompressed, with_header

from echojepa.data.decode.frames import ReadConfig, open_video
from echojepa.errors import ClipError

VECTOR = [0, *[20.0] * 19, *[100.0] * 10]
"""Milliseconds between 30 frames: at 50 and then at 10 frames per second."""


def grey(num_frames: int) -> np.ndarray:
    """Frames [T, 240, 320] that are as bright as their number."""
    levels = np.arange(num_frames, dtype=np.uint8)
    return np.broadcast_to(levels[:, None, None], (num_frames, 240, 320)).copy()


@pytest.mark.parametrize(
    "header",
    [
        {"FrameTime": None, "CineRate": None},
        {"FrameTime": None, "CineRate": 25},
        {"FrameTime": 33.333, "FrameIncrementPointer": Tag("FrameTimeVector")},
    ],
    ids=str,
)
def test_a_vector_of_frame_times_counts(
    dicom: str, tmp_path: Path, header: dict[str, object]
) -> None:
    data = uncompressed(dicom, grey(30), "MONOCHROME2")
    if "FrameIncrementPointer" not in header:
        del data.FrameIncrementPointer
    data.FrameTimeVector = VECTOR
    for keyword, value in header.items():
        setattr(data, keyword, value)
    path = tmp_path / "clip.dcm"
    data.save_as(path)
    info = probe(str(path))
    times = np.cumsum(VECTOR) / 1000
    assert info.native_fps == pytest.approx(29 / times[-1])
    assert info.duration_seconds == pytest.approx(times[-1] * 30 / 29)
    wanted = np.arange(0, 1.38, 0.125)
    frames = open_video(str(path)).frames_at(wanted)[:, 0, 0, 0]
    distances = np.abs(times[:, None] - wanted[None])
    assert distances[frames, np.arange(len(wanted))] == pytest.approx(distances.min(axis=0))


def test_a_pointer_to_the_frame_time_outranks_the_vector(dicom: str, tmp_path: Path) -> None:
    header = {"FrameTimeVector": VECTOR, "FrameIncrementPointer": Tag("FrameTime")}
    path = with_header(dicom, tmp_path, header)
    assert probe(str(path)).native_fps == pytest.approx(1000 / 33.333)


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ({"FrameTime": -33}, "implausible_rate"),
        ({"FrameTime": 0.0001}, "implausible_rate"),
        ({"FrameTime": 5000}, "implausible_rate"),
        ({"FrameTime": None, "CineRate": 2000}, "implausible_rate"),
        ({"FrameTimeVector": [0, *[-20.0] * 29], "FrameTime": None}, "implausible_rate"),
        ({"FrameTimeVector": [0, *[0.01] * 29], "FrameTime": None}, "implausible_rate"),
        ({"FrameTimeVector": VECTOR[:20], "FrameTime": None}, "frame_count_mismatch"),
        ({"NumberOfFrames": 8}, "frame_count_mismatch"),
        ({"NumberOfFrames": 31}, "frame_count_mismatch"),
        ({"Modality": "CT"}, "not_ultrasound"),
        ({"Modality": "MR"}, "not_ultrasound"),
        ({"Modality": None}, "not_ultrasound"),
    ],
    ids=str,
)
def test_a_header_that_cannot_be_true(
    dicom: str, tmp_path: Path, header: dict[str, object], kind: str
) -> None:
    data = pydicom.dcmread(dicom)
    del data.FrameIncrementPointer
    data.save_as(tmp_path / "free.dcm")
    path = with_header(str(tmp_path / "free.dcm"), tmp_path, header)
    assert error_of(lambda: probe(str(path)), path) == ("open", kind)
    assert error_of(lambda: read_frames(str(path), [0]), path) == ("open", kind)


@pytest.mark.parametrize(("promised", "there"), [(8, 10), (None, 3), (10, 8)])
def test_native_frames_are_counted(
    dicom: str, tmp_path: Path, promised: int | None, there: int
) -> None:
    data = uncompressed(dicom, grey(there), "MONOCHROME2")
    data.NumberOfFrames = promised
    path = tmp_path / "hidden.dcm"
    data.save_as(path)
    assert error_of(lambda: probe(str(path)), path) == ("open", "frame_count_mismatch")


@pytest.mark.parametrize("has_offsets", [True, False])
def test_frames_of_several_fragments_are_counted(
    dicom: str, tmp_path: Path, has_offsets: bool
) -> None:
    data = pydicom.dcmread(dicom)
    expected = data.pixel_array
    frames = list(generate_frames(data.PixelData, number_of_frames=30))
    data.PixelData = encapsulate(frames, fragments_per_frame=3, has_bot=has_offsets)
    path = tmp_path / "clip.dcm"
    data.save_as(path)
    assert probe(str(path)) == probe(dicom)
    assert np.array_equal(read_frames(str(path), [0, 17, 29]), expected[[0, 17, 29]])


def test_run_length_encoding(dicom: str, tmp_path: Path) -> None:
    data = uncompressed(dicom, grey(5), "MONOCHROME2")
    data.compress(RLELossless, generate_instance_uid=False)
    path = tmp_path / "clip.dcm"
    data.save_as(path)
    assert probe(str(path)).num_frames == 5
    assert read_frames(str(path), [0, 3, 4])[:, 5, 5, 1].tolist() == [0, 3, 4]


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm"])
def test_other_modalities_are_no_ultrasound(name: str) -> None:
    path = str(get_testdata_file(name))
    assert error_of(lambda: probe(path), name) == ("open", "not_ultrasound")


def test_other_modalities_by_choice(dicom: str, tmp_path: Path) -> None:
    path = str(with_header(dicom, tmp_path, {"Modality": "IVUS"}))
    assert error_of(lambda: probe(path), path) == ("open", "not_ultrasound")
    both = ReadConfig(modalities=("US", "IVUS"))
    assert open_video(path, both).probe() == probe(dicom)
    assert len(open_video(path, both).frames([0, 1])) == 2


def test_video_inside_dicom_says_what_to_do(dicom: str, tmp_path: Path) -> None:
    data = pydicom.dcmread(dicom)
    data.file_meta.TransferSyntaxUID = MPEG4HP41
    data.save_as(tmp_path / "hidden.dcm")
    with pytest.raises(Exception, match="unsupported: MPEG-4 .*take the stream out") as caught:
        probe(str(tmp_path / "hidden.dcm"))
    assert "hidden" not in str(caught.value)


@pytest.mark.skipif(
    get_decoder(JPEGLosslessSV1).is_available, reason="a plugin for JPEG Lossless is installed"
)
def test_a_missing_plugin_is_named() -> None:
    path = str(get_testdata_file("JPGLosslessP14SV1_1s_1f_8b.dcm"))
    with pytest.raises(ClipError, match="JPEG Lossless.* needs one of: .*pylibjpeg-libjpeg") as e:
        probe(path)
    assert (e.value.stage, e.value.kind) == ("decode", "unsupported")
