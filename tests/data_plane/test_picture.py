"""Pictures as people see them: upright, with square pixels, of the best stream."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pydicom
import pytest
from av.stream import Disposition
from support.clips import NUM_FRAMES, SHORT_GOP, error_of, numbered_frame, probe, read_frames

CORNERS = np.zeros((48, 64, 3), np.uint8)
"""Four patches of different grey: which corner is which can be told after any turn."""
for _index, (_rows, _columns) in enumerate(
    ((slice(0, 24), slice(0, 32)), (slice(0, 24), slice(32, 64)),
     (slice(24, 48), slice(0, 32)), (slice(24, 48), slice(32, 64)))
):  # fmt: skip
    CORNERS[_rows, _columns] = 40 + 60 * _index


def write_still_video(path: Path, picture: np.ndarray, **stream_settings: object) -> Path:
    """Five frames of one picture, with settings of the encoder's context or stream."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], "yuv420p"
        rotation = stream_settings.pop("rotation", None)
        for name, value in stream_settings.items():
            setattr(stream.codec_context, name, value)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for _ in range(5):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_rotation_flag_is_applied(tmp_path: Path, degrees: int) -> None:
    """FFmpeg counts counterclockwise: a flag of 90 shows the stored picture turned to the left."""
    path = write_still_video(tmp_path / "clip.mp4", CORNERS, rotation=degrees)
    expected = np.rot90(CORNERS, degrees // 90)
    info = probe(str(path))
    assert (info.height, info.width) == expected.shape[:2]
    frame = read_frames(str(path), [2])[0]
    assert frame.shape == expected.shape
    assert np.abs(frame.astype(int) - expected).mean() < 3


def test_a_rotation_between_quarters_is_refused(tmp_path: Path) -> None:
    path = write_still_video(tmp_path / "hidden.mp4", CORNERS, rotation=30)
    assert error_of(lambda: probe(str(path)), path) == ("open", "unsupported")
    assert error_of(lambda: read_frames(str(path), [0]), path) == ("open", "unsupported")


@pytest.mark.parametrize(
    ("aspect", "shape"), [(Fraction(3, 2), (48, 96)), (Fraction(2, 3), (72, 64))]
)
def test_pixels_become_square_and_nothing_smaller(
    tmp_path: Path, aspect: Fraction, shape: tuple[int, int]
) -> None:
    path = write_still_video(tmp_path / "clip.mp4", CORNERS, sample_aspect_ratio=aspect)
    assert (probe(str(path)).height, probe(str(path)).width) == shape
    frame = read_frames(str(path), [1])[0]
    expected = cv2.resize(CORNERS, shape[::-1], interpolation=cv2.INTER_CUBIC)
    assert frame.shape == expected.shape
    assert np.abs(frame.astype(int) - expected).mean() < 4
    assert error_of(lambda: read_frames(str(path), [1], "decord")) == ("open", "unsupported")


def test_pixels_of_an_impossible_shape_are_refused(tmp_path: Path) -> None:
    path = write_still_video(tmp_path / "hidden.mp4", CORNERS, sample_aspect_ratio=Fraction(9, 1))
    assert error_of(lambda: probe(str(path)), path) == ("open", "unsupported")


def test_pixel_aspect_of_a_dicom(dicom: str, tmp_path: Path) -> None:
    data = pydicom.dcmread(dicom)
    data.PixelAspectRatio = [2, 1]  # height, width
    data.save_as(tmp_path / "clip.dcm")
    info = probe(str(tmp_path / "clip.dcm"))
    assert (info.height, info.width) == (480, 320)
    frame = read_frames(str(tmp_path / "clip.dcm"), [4])[0]
    expected = cv2.resize(read_frames(dicom, [4])[0], (320, 480))
    assert np.array_equal(frame, expected)


def test_the_best_stream_is_taken_not_the_first(tmp_path: Path) -> None:
    """A thumbnail before the video that the file calls its default."""
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as output:
        streams = [output.add_stream("libx264", rate=25) for _ in range(2)]
        for stream, scale in zip(streams, (1, 2), strict=True):
            stream.height, stream.width, stream.pix_fmt = 48 * scale, 64 * scale, "yuv420p"
        streams[1].disposition = Disposition.default
        for number in range(8):
            for stream, scale in zip(streams, (1, 2), strict=True):
                large = np.kron(numbered_frame(number), np.ones((scale, scale, 1), np.uint8))
                output.mux(stream.encode(av.VideoFrame.from_ndarray(large, format="rgb24")))
        for stream in streams:
            output.mux(stream.encode(None))
    assert (probe(str(path)).height, probe(str(path)).num_frames) == (96, 8)
    assert read_frames(str(path), [3]).shape == (1, 96, 128, 3)


@pytest.mark.parametrize("form", ["mpegts", "mpeg", "mjpeg", "gif", "flv"])
def test_other_containers_are_refused_at_the_door(videos: Path, tmp_path: Path, form: str) -> None:
    """Some can't be cut exactly, some are no containers; whatever the name says."""
    codec = {"mpegts": "libx264", "flv": "libx264", "mpeg": "mpeg1video"}.get(form, form)
    pixels = {"mjpeg": "yuvj420p", "gif": "rgb8"}.get(form, "yuv420p")
    path = tmp_path / "hidden.mp4"
    with av.open(str(path), "w", format=form) as output:
        stream = output.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, pixels
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number), format="rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    assert error_of(lambda: probe(str(path)), path) == ("open", "not_a_video")
    with av.open(str(path)) as container:
        assert container.streams.video, "FFmpeg itself would read it"


def test_a_list_of_other_files_is_not_followed(videos: Path, tmp_path: Path) -> None:
    playlist = tmp_path / "hidden.mp4"
    segment = (videos / SHORT_GOP.name).as_uri()
    playlist.write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:{NUM_FRAMES}\n#EXTINF:2,\n{segment}\n#EXT-X-ENDLIST\n"
    )
    assert error_of(lambda: probe(str(playlist)), playlist) == ("open", "not_a_video")
