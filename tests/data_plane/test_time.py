"""Time is the file's own: a wanted moment shows the frame nearest to it, by the packets' times."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.clips import (
    HEIGHT,
    LONG_GOP,
    SHORT_GOP,
    WIDTH,
    cut_off,
    error_of,
    numbered_frame,
    numbers,
    probe,
    write_trimmed,
)

from echojepa.data.decode.frames import open_video
from echojepa.data.decode.timeline import frame_rate, nearest
from echojepa.data.sampling import ClipConfig, Timing, window_at
from echojepa.errors import ClipError

CODECS = {".mp4": "libx264", ".mkv": "libx264", ".avi": "mjpeg"}


def write_at(path: Path, stamps: Iterable[int], base: Fraction) -> Path:
    """A video whose i-th frame carries the number i and is shown at stamps[i] * base."""
    codec = CODECS[path.suffix]
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=round(1 / base))
        stream.height, stream.width = HEIGHT, WIDTH
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = base
        for number, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number), format="rgb24")
            frame.pts, frame.time_base = stamp, base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def shown_at(path: Path, wanted: np.ndarray) -> list[int]:
    """Numbers of the frames that a file shows at some times."""
    return numbers(open_video(str(path)).frames_at(wanted))


def assert_nearest(path: Path, times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Every wanted time shows a frame as near as any; returns the distances, [T]."""
    times = times - times[0]
    distances = np.abs(times[:, None] - wanted[None])
    chosen = distances[shown_at(path, wanted), np.arange(len(wanted))]
    assert chosen == pytest.approx(distances.min(axis=0), abs=1.1e-3)  # Matroska counts in ms
    return chosen


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_frames_that_were_left_out(tmp_path: Path, suffix: str) -> None:
    """120 pictures at 30 fps; of the first 60, those divisible by 2 or 3 are not in the file."""
    kept = np.array([i for i in range(120) if i >= 60 or (i % 2 and i % 3)])
    path = write_at(tmp_path / f"clip{suffix}", (kept - kept[0]).tolist(), Fraction(1, 30))
    info = probe(str(path))
    assert info.num_frames == len(kept) == 80
    assert info.duration_seconds == pytest.approx(118 / 30 + 1 / info.native_fps, abs=2e-3)
    clip = ClipConfig(num_frames=16, fps=8.0)
    timing = Timing(*info[:3])
    for part in np.linspace(0, 1, 9):
        wanted = window_at(part * timing.latest_start(clip), timing, clip).seconds
        distances = assert_nearest(path, kept / 30, wanted)
        late = wanted > 60 / 30
        assert distances[late].max(initial=0.0) <= 0.5 / 30 + 1.1e-3, "half a native frame"
        assert distances.max() <= 2 / 30 + 1.1e-3, "half of the widest gap, of four frames"


def test_fifty_frames_a_second_and_then_ten(tmp_path: Path) -> None:
    times = np.concatenate([np.arange(50) / 50, 1 + np.arange(20) / 10])
    stamps = np.round(times * 50).astype(int).tolist()
    path = write_at(tmp_path / "clip.mp4", stamps, Fraction(1, 50))
    info = probe(str(path))
    assert info.num_frames == 70
    assert info.native_fps == pytest.approx(69 / 2.9, rel=0.01)
    assert_nearest(path, times, np.arange(24) / 8)


def test_equal_time_stamps(tmp_path: Path) -> None:
    """Matroska counts milliseconds: at 1,500 fps two frames of three share one."""
    stamps = [round(i / 1.5) for i in range(60)]
    path = write_at(tmp_path / "hidden.mkv", stamps, Fraction(1, 1000))
    assert error_of(lambda: probe(str(path)), path) == ("open", "implausible_rate")
    assert numbers(open_video(str(path)).frames(range(60), 60)) == list(range(60))
    assert numbers(open_video(str(path)).frames([31, 31, 32, 58])) == [31, 31, 32, 58]


def test_null_frames_of_an_avi(tmp_path: Path) -> None:
    """Slots without a frame repeat the one before: a flash due at 1.000 s is there at 1.000 s."""
    stamps = [*range(22), *range(30, 60)]  # 8 null frames before the 30th slot
    path = write_at(tmp_path / "clip.avi", stamps, Fraction(1, 30))
    content = path.read_bytes()
    assert content[content.index(b"movi") : content.rindex(b"idx1")].count(b"00dc\0\0\0\0") == 8
    info = probe(str(path))
    assert info.num_frames == 52, "and not truncated, though the header counts 60"
    assert shown_at(path, np.array([0.9, 1.0, 1.034, 59 / 30])) == [22, 22, 23, 51]
    cut = cut_off(path, tmp_path / "hidden.avi", 0.8)
    assert error_of(lambda: probe(str(cut)), cut) == ("decode", "truncated")


def test_null_frames_at_the_end_of_an_avi(tmp_path: Path) -> None:
    """The header promises slots that no frame fills; the file is whole, and says so."""
    path = write_at(tmp_path / "clip.avi", range(20), Fraction(1, 30))
    content = bytearray(path.read_bytes())
    for tag, offset in ((b"avih", 24), (b"strh", 40)):  # dwTotalFrames, dwLength
        at = content.index(tag) + offset
        assert struct.unpack_from("<I", content, at) == (20,)
        struct.pack_into("<I", content, at, 23)
    path.write_bytes(content)
    assert probe(str(path)).num_frames == 20


def test_an_edit_list_sets_the_first_moment(videos: Path, tmp_path: Path) -> None:
    for kind in (SHORT_GOP, LONG_GOP):
        path = write_trimmed(videos / kind.name, tmp_path / kind.name, 20)
        info = probe(str(path))
        assert info.duration_seconds == pytest.approx(40 / float(kind.rate), rel=1e-3)
        assert shown_at(path, np.array([0.0, 0.4])) == [20, 20 + round(0.4 * float(kind.rate))]


def test_halves_take_the_later_frame_whatever_the_rounding() -> None:
    for fps in (24.0, 25.0, 30.0, 30000 / 1001, 47.0, 50.0):
        times = np.arange(200) / fps
        halves = (np.arange(199) + 0.5) / fps
        assert nearest(times, halves).tolist() == list(range(1, 200))


def test_a_rate_is_stated_measured_or_implausible() -> None:
    times = np.arange(60) / 29.97
    assert frame_rate(times, 30000 / 1001) == 30000 / 1001
    assert frame_rate(times, 60.0) == pytest.approx(29.97)
    assert frame_rate(times, None) == pytest.approx(29.97)
    for wrong in (times * 40, times / 40, np.zeros(3)):
        with pytest.raises(ClipError, match="implausible_rate"):
            frame_rate(wrong, 29.97)
    assert frame_rate(np.zeros(1), 30.0) == 30.0
    assert frame_rate(np.zeros(1), 1e7) == 1.0
