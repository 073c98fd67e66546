"""Frames by index: the right ones out of good files, one clear error out of every bad one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
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
    cut_off,
    error_of,
    numbered_frame,
    numbers,
    outcome,
    overwrite,
    write_clip,
    write_sound,
    write_trimmed,
    written,
)

from echojepa.data.decode.frames import DecoderName, VideoInfo, open_source, probe, read_frames
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


# ------------------------------------------------------------------------------------ good files


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
    window = window_at(0.3, NUM_FRAMES, float(kind.rate), clip)
    frames = read_frames(str(videos / kind.name), window.indices, num_promised=NUM_FRAMES)
    assert numbers(frames) == window.indices.tolist()


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
    assert info == VideoInfo(NUM_FRAMES, pytest.approx(float(kind.rate), rel=1e-6), HEIGHT, WIDTH)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_url_is_read_into_memory_and_gives_the_same(videos: Path, kind: Kind) -> None:
    path = videos / kind.name
    url = path.as_uri()
    assert not isinstance(open_source(url), str)
    assert open_source(str(path)) == str(path)
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


# ------------------------------------------------------------------------------------- bad files

PRESENT: dict[str, Callable[[Path, Path], Path]] = {
    "text": lambda _, out: written(out / "hidden.mp4", b"not a video at all\n" * 40),
    "noise": lambda _, out: written(out / "hidden.avi", np.random.default_rng(0).bytes(4000)),
    "no_index": lambda videos, out: cut_off(videos / LONG_GOP.name, out / "hidden.mp4", 0.6),
    "riff_only": lambda videos, out: cut_off(videos / MJPEG.name, out / "hidden.avi", 0.0003),
}


@pytest.mark.parametrize("name", PRESENT)
@pytest.mark.parametrize("remote", [False, True], ids=["path", "url"])
def test_not_a_video(videos: Path, tmp_path: Path, name: str, remote: bool) -> None:
    path = PRESENT[name](videos, tmp_path)
    uri = path.as_uri() if remote else str(path)
    assert error_of(lambda: probe(uri), path) == ("open", "not_a_video")
    assert error_of(lambda: read_frames(uri, [0]), path) == ("open", "not_a_video")


def test_missing(tmp_path: Path) -> None:
    for path in (tmp_path / "hidden.mp4", tmp_path / "hidden.dcm", tmp_path / "hidden.avi"):
        for uri in (str(path), path.as_uri()):
            assert error_of(lambda uri=uri: probe(uri), path) == ("open", "missing")
            assert error_of(lambda uri=uri: read_frames(uri, [0]), path) == ("open", "missing")
    path = tmp_path / "hidden.mp4"
    assert error_of(lambda: read_frames(str(path), [0], "decord"), path) == ("open", "missing")


def test_empty(tmp_path: Path) -> None:
    path = written(tmp_path / "hidden.mp4", b"")
    for decoder in DECODERS:
        read = error_of(lambda decoder=decoder: read_frames(str(path), [0], decoder), path)
        assert read == ("open", "empty")
    assert error_of(lambda: probe(str(path)), path) == ("open", "empty")
    assert error_of(lambda: probe(path.as_uri()), path)[0] == "open"
    dicom = written(tmp_path / "hidden.dcm", b"")
    assert error_of(lambda: probe(str(dicom)), dicom) == ("open", "not_a_video")


def test_unreadable(tmp_path: Path) -> None:
    file = written(tmp_path / "hidden.mp4", b"x")
    below = file / "hidden.mp4"
    assert error_of(lambda: probe(str(below)), file) == ("open", "unreadable")
    for uri in ("nowhere://hidden/a.mp4", "file://host/hidden.mp4", "s3://"):
        assert error_of(lambda uri=uri: probe(uri), "hidden") == ("open", "unreadable")
    for folder in (tmp_path / "hidden_folder.mp4", tmp_path / "hidden_folder.dcm"):
        folder.mkdir()
        assert error_of(lambda folder=folder: probe(str(folder)), folder)[1] != ""


def test_a_name_no_file_can_have() -> None:
    assert error_of(lambda: read_frames("hid\0den.mp4", [0]), "hid\0den")[0] == "open"


def test_no_video_stream(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "hidden.mp4")
    for uri in (str(path), path.as_uri()):
        for call in (lambda uri=uri: probe(uri), lambda uri=uri: read_frames(uri, [0])):
            assert error_of(call, path) == ("open", "no_video_stream")
    assert error_of(lambda: read_frames(str(path), [0], "decord"), path)[0] in {"open", "decode"}


def test_no_frames(tmp_path: Path) -> None:
    path = write_clip(tmp_path, MJPEG, num_frames=0).rename(tmp_path / "hidden.avi")
    for uri in (str(path), path.as_uri()):
        for call in (lambda uri=uri: probe(uri), lambda uri=uri: read_frames(uri, [0])):
            assert error_of(call, path) == ("open", "no_frames")
    assert error_of(lambda: read_frames(str(path), [0], "decord"), path)[0] in {"open", "decode"}


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", [SHORT_GOP, MJPEG], ids=lambda kind: kind.name)
def test_truncated_below_what_the_header_promises(
    videos: Path, tmp_path: Path, kind: Kind, part: float
) -> None:
    """Frames that are still there could be read, and would be a silently shorter video."""
    path = cut_off(videos / kind.name, tmp_path / f"hidden{Path(kind.name).suffix}", part)
    for uri in (str(path), path.as_uri()):
        assert error_of(lambda uri=uri: probe(uri), path) == ("decode", "truncated")
        read = error_of(lambda uri=uri: read_frames(uri, [0, 2]), path)
        assert read == ("decode", "truncated")


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("kind", [FRAGMENTED, MJPEG], ids=lambda kind: kind.name)
def test_truncated_below_what_the_manifest_promises(
    videos: Path, tmp_path: Path, kind: Kind, decoder: DecoderName
) -> None:
    path = cut_off(videos / kind.name, tmp_path / f"hidden{Path(kind.name).suffix}", 0.5)
    error = error_of(lambda: read_frames(str(path), [0, 2], decoder, NUM_FRAMES), path)
    assert error in {("decode", "truncated"), ("decode", "damaged")}
    if decoder == "pyav":
        assert error == ("decode", "truncated")


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("kind", [LONG_GOP, SHORT_GOP, MJPEG], ids=lambda kind: kind.name)
def test_beyond_the_end(videos: Path, kind: Kind, decoder: DecoderName) -> None:
    path = str(videos / kind.name)
    for indices, promised, message in (
        ([NUM_FRAMES], 0, "60 of 61 frames are there"),
        ([0, 5, 99], NUM_FRAMES, "60 of 100 frames are there"),
        ([0, 5], NUM_FRAMES + 3, "60 of 63 frames are there"),
    ):
        with pytest.raises(Exception) as caught:
            read_frames(path, indices, decoder, promised)
        assert str(caught.value) == f"decode: truncated: {message}"
    assert len(read_frames(path, [0, NUM_FRAMES - 1], decoder, NUM_FRAMES)) == 2
    assert len(read_frames(path, [0], decoder, NUM_FRAMES - 30)) == 1  # more than promised is fine


@pytest.mark.parametrize("kind", [LONG_GOP, SHORT_GOP], ids=lambda kind: kind.name)
def test_a_corrupt_middle_is_damage_not_another_container(
    videos: Path, tmp_path: Path, kind: Kind
) -> None:
    path = overwrite(videos / kind.name, tmp_path / "hidden.mp4", 0.4, 2000)
    error = error_of(lambda: read_frames(str(path), range(NUM_FRAMES), "pyav", NUM_FRAMES), path)
    assert error == ("decode", "damaged")
    assert numbers(read_frames(str(path), [0, 1, 2], "pyav", NUM_FRAMES)) == [0, 1, 2]


def test_a_corrupt_picture_is_not_passed_off_as_a_good_one(videos: Path, tmp_path: Path) -> None:
    """A Motion JPEG frame whose entropy-coded data is noise decodes to garbage if it may."""
    content = (videos / MJPEG.name).read_bytes()
    scan = b"\xff\xda"  # the marker before a picture's entropy-coded data
    head = scan.join(content.split(scan)[:22])
    noise = np.random.default_rng(0).integers(0, 255, 200, dtype=np.uint8).tobytes()  # no marker
    damaged = head + scan + content[len(head) + 2 :][:20] + noise + content[len(head) + 222 :]
    assert len(damaged) == len(content)
    path = written(tmp_path / "hidden.avi", damaged)
    good = read_frames(str(videos / MJPEG.name), range(NUM_FRAMES))

    frames = outcome(lambda: read_frames(str(path), range(NUM_FRAMES), "pyav", NUM_FRAMES))
    if not isinstance(frames, str):
        difference = np.abs(frames.astype(int) - good).mean(axis=(1, 2, 3))
        pytest.fail(f"frame {difference.argmax()} is off by {difference.max():.0f} grey levels")
    assert frames == "damaged"


def test_an_unknown_codec(videos: Path, tmp_path: Path) -> None:
    content = (videos / LONG_GOP.name).read_bytes()
    assert content.count(b"avc1") >= 1
    path = written(tmp_path / "hidden.mp4", content.replace(b"avc1", b"zzzz"))
    for call in (lambda: probe(str(path)), lambda: read_frames(str(path), [0])):
        stage, kind = error_of(call, path)
        assert stage == "open"
        assert kind in {"unsupported", "not_a_video"}


def test_decord_reads_no_urls(videos: Path) -> None:
    uri = (videos / LONG_GOP.name).as_uri()
    assert error_of(lambda: read_frames(uri, [0], "decord")) == ("open", "unsupported")


def test_a_picture_size_that_changes(tmp_path: Path) -> None:
    path = tmp_path / "hidden.avi"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mjpeg", rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuvj420p"
        for number in range(6):
            scale = 1 if number < 3 else 2
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.height, encoder.width = HEIGHT * scale, WIDTH * scale
            encoder.pix_fmt, encoder.time_base = "yuvj420p", Fraction(1, 25)
            large = np.repeat(np.repeat(numbered_frame(number), scale, 0), scale, 1)
            frame = av.VideoFrame.from_ndarray(large, format="rgb24")
            for packet in encoder.encode(frame):
                packet.pts = packet.dts = number
                packet.time_base = Fraction(1, 25)
                packet.stream = stream
                output.mux(packet)
    error = error_of(lambda: read_frames(str(path), [1, 4], "pyav"), path)
    assert error == ("decode", "unsupported")


# --------------------------------------------------------------------------------- no crash, ever

_READ_ALL = """
import json, sys
from echojepa.data.decode.frames import probe, read_frames
from echojepa.errors import ClipError

for uri, decoder in json.loads(sys.argv[1]):
    try:
        probe(uri, decoder)
        read_frames(uri, [0, 9, 31], decoder, 60)
        print("ok", flush=True)
    except ClipError as error:
        print(error.kind, flush=True)
"""


def test_broken_files_never_crash_the_interpreter(videos: Path, tmp_path: Path) -> None:
    files = []
    for kind, parts in (
        (LONG_GOP, (0.001, 0.5, 0.97)),
        (SHORT_GOP, (0.02, 0.1, 0.7)),
        (FRAGMENTED, (0.03, 0.5, 0.9)),
        (MJPEG, (0.005, 0.08, 0.7)),
    ):
        for number, part in enumerate(parts):
            target = tmp_path / f"{number}_{kind.name}"
            files.append(cut_off(videos / kind.name, target, part))
    assert len(files) == 12
    calls = [(str(file), "auto") for file in files]
    calls += [(file.as_uri(), "auto") for file in files]
    calls += [(str(file), "decord") for file in files]
    command = [sys.executable, "-c", _READ_ALL, json.dumps(calls)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    kinds = done.stdout.split()
    assert len(kinds) == len(calls)
    assert "ok" not in kinds
