"""Frames by index: the right ones out of good files, one clear error out of every bad one."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.clips import (
    FRAGMENTED,
    HEIGHT,
    KINDS,
    LONG_GOP,
    MJPEG,
    MPEG4,
    NTSC,
    NUM_FRAMES,
    OPEN_GOP,
    SHORT_GOP,
    WIDTH,
    Kind,
    even,
    numbered_frame,
    numbers,
    outcome,
    probe,
    read_frames,
    shown,
    write_clip,
    write_trimmed,
)

from echojepa.data.decode.frames import DecoderName, open_video
from echojepa.data.decode.timeline import VideoInfo
from echojepa.data.sampling import ClipConfig, window_at

PATTERNS = (
    range(NUM_FRAMES),
    range(0, NUM_FRAMES, 4),
    [0],
    [NUM_FRAMES - 1],
    [0, NUM_FRAMES - 1],
    [33],
    [5, 6, 7],
    [15, 16, 17],
    [31],
    [32],
    [17, 17, 18, 40, 40, 40, 59, 59],
    [0, 0, 0],
    [1, 2, 3, 5, 8, 13, 21, 34, 55],
)
DECODERS: tuple[DecoderName, ...] = ("pyav", "decord")
WITH_DECORD = (LONG_GOP, SHORT_GOP, NTSC, FRAGMENTED, MJPEG)


@pytest.mark.parametrize("indices", PATTERNS, ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_pyav_is_frame_accurate(videos: Path, kind: Kind, indices: list[int]) -> None:
    frames = read_frames(str(videos / kind.name), indices, "pyav", NUM_FRAMES)
    assert frames.shape == (len(indices), HEIGHT, WIDTH, 3)
    assert frames.dtype == np.uint8
    assert numbers(frames) == list(indices)


@pytest.mark.parametrize("kind", WITH_DECORD, ids=lambda kind: kind.name)
def test_decord_is_frame_accurate(videos: Path, kind: Kind) -> None:
    for indices in PATTERNS:
        frames = read_frames(str(videos / kind.name), indices, "decord", NUM_FRAMES)
        assert frames.dtype == np.uint8
        assert numbers(frames) == list(indices)


def test_decord_never_gives_other_frames(videos: Path, tmp_path: Path) -> None:
    """It seeks wrongly in AVI with motion prediction and behind edit lists: better an error."""
    trimmed = write_trimmed(videos / SHORT_GOP.name, tmp_path / "trimmed.mp4", 20)
    for path, offset, indices in (
        (videos / MPEG4.name, 0, [33]),
        (videos / MPEG4.name, 0, [17, 17, 18, 40, 40, 40, 59, 59]),
        (trimmed, 20, [0, 1, 5, 39]),
    ):
        found = outcome(lambda p=str(path), i=indices: numbers(read_frames(p, i, "decord")))
        assert found in ("unsupported", [i + offset for i in indices])


def test_avi_without_presentation_times_gives_no_other_frames(tmp_path: Path) -> None:
    """H.264 with B-frames in AVI, where FFmpeg makes the times up: an error, or the frame."""
    kind = Kind("h264.avi", "libx264", Fraction(30), {"g": "30", "bf": "2"})
    path = str(write_clip(tmp_path, kind))
    for index in range(12):
        found = outcome(lambda i=index: numbers(read_frames(path, [i], "pyav", NUM_FRAMES)))
        assert found in ("unsupported", "damaged", [index])


@given(indices=st.lists(st.integers(0, NUM_FRAMES - 1), min_size=1, max_size=16).map(sorted))
@settings(max_examples=25, deadline=None)
def test_any_indices(videos: Path, indices: list[int]) -> None:
    for kind in (LONG_GOP, OPEN_GOP, MPEG4):
        assert numbers(read_frames(str(videos / kind.name), indices)) == indices


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_windows_of_clips(videos: Path, kind: Kind) -> None:
    clip = ClipConfig(num_frames=16, fps=24.0)
    window = window_at(0.3, even(NUM_FRAMES, float(kind.rate)), clip)
    frames = open_video(str(videos / kind.name)).frames_at(window.seconds, NUM_FRAMES)
    assert numbers(frames) == shown(window, NUM_FRAMES, float(kind.rate))


@pytest.mark.parametrize("kind", [LONG_GOP, MJPEG], ids=lambda kind: kind.name)
def test_pixels_are_those_of_the_file(videos: Path, kind: Kind) -> None:
    path = videos / kind.name
    with av.open(str(path)) as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    frames = read_frames(str(path), range(NUM_FRAMES), "pyav")
    assert np.array_equal(frames, np.stack(expected))
    written = np.stack([numbered_frame(i) for i in range(NUM_FRAMES)]).astype(int)
    assert np.abs(frames - written).mean() < 6.0
    other = read_frames(str(path), range(NUM_FRAMES), "decord")
    assert np.abs(frames.astype(int) - other).mean() < 2.0


def test_variable_frame_rate(tmp_path: Path) -> None:
    """Indices count frames, not time."""
    path = tmp_path / "variable.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=30, options={"bf": "2", "g": "20"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 300)
        time = 77
        for number in range(30):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 300)
            time += 10 if number % 3 else 35
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    for decoder in DECODERS:
        for indices in (list(range(30)), [29], [7, 7, 8, 21]):
            assert numbers(read_frames(str(path), indices, decoder, 30)) == indices


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_probe(videos: Path, kind: Kind) -> None:
    info = probe(str(videos / kind.name))
    rate = pytest.approx(float(kind.rate), rel=1e-6)
    duration = pytest.approx(NUM_FRAMES / float(kind.rate), rel=1e-4)
    assert info == VideoInfo(NUM_FRAMES, rate, duration, HEIGHT, WIDTH)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_url_is_read_into_memory_and_gives_the_same(videos: Path, kind: Kind) -> None:
    path = videos / kind.name
    url = path.as_uri()
    assert probe(url) == probe(str(path))
    indices = [3, 3, 18, 44]
    assert np.array_equal(read_frames(url, indices), read_frames(str(path), indices))


def test_a_trimmed_file_holds_what_its_edit_list_shows(videos: Path, tmp_path: Path) -> None:
    """Cutting without encoding again, as `ffmpeg -ss ... -c copy` does, leaves hidden frames."""
    for kind in (SHORT_GOP, LONG_GOP):
        path = write_trimmed(videos / kind.name, tmp_path / kind.name, 20)
        with av.open(str(path)) as container:
            shown = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
        assert numbers(shown) == list(range(20, NUM_FRAMES))
        assert probe(str(path)).num_frames == NUM_FRAMES - 20
        indices = [0, 1, 5, 39]
        assert numbers(read_frames(str(path), indices)) == [i + 20 for i in indices]
