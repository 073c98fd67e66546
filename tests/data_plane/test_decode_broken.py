"""One clear error out of every bad file, and never a crash."""

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
from support.clips import (
    FRAGMENTED,
    HEIGHT,
    LONG_GOP,
    MJPEG,
    NUM_FRAMES,
    SHORT_GOP,
    WIDTH,
    Kind,
    cut_off,
    error_of,
    numbered_frame,
    numbers,
    outcome,
    overwrite,
    probe,
    read_frames,
    write_clip,
    write_sound,
    written,
)

from echojepa.data.decode import decord_video
from echojepa.data.decode.frames import DecoderName
from echojepa.data.decode.source import Source

DECODERS: tuple[DecoderName, ...] = ("pyav", "decord")

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
    assert error_of(lambda: probe(str(dicom)), dicom) == ("open", "empty")


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


def test_decord_reads_no_objects(videos: Path) -> None:
    source = Source((videos / LONG_GOP.name).read_bytes(), None)
    error = error_of(lambda: decord_video.read(source, lambda _: np.array([0]), 0))
    assert error == ("open", "unsupported")


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


_READ_ALL = """
import json, sys
from echojepa.data.decode.frames import ReadConfig, open_video
from echojepa.errors import ClipError

for uri, decoder in json.loads(sys.argv[1]):
    try:
        video = open_video(uri, ReadConfig(decoder=decoder))
        video.probe()
        video.frames([0, 9, 31], 60)
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
