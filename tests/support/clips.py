"""Real video files whose frames carry their own number, and manifests of them.

The upper half of a frame is eight blocks, dark or bright: the frame number in binary, which
survives any codec. The lower half is a texture of its own per frame, so that no two are alike.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from echojepa.data.decode.frames import DecoderName, ReadConfig, open_video
from echojepa.data.decode.timeline import VideoInfo, nearest
from echojepa.data.sampling import Timing, Window
from echojepa.errors import ClipError

HEIGHT, WIDTH = 48, 64
NUM_FRAMES = 60
_BLOCK = WIDTH // 8


@dataclass(frozen=True)
class Kind:
    """One way to encode a clip."""

    name: str
    """Of the file; the suffix chooses the container."""
    codec: str
    rate: Fraction
    options: dict[str, str] = field(default_factory=dict)
    """Of the codec."""
    pixels: str = "yuv420p"
    muxing: dict[str, str] = field(default_factory=dict)


LONG_GOP = Kind("long_gop.mp4", "libx264", Fraction(30), {"g": "250", "bf": "3"})
"""H.264 with one keyframe and B-frames; the index (moov) is at the end of the file."""
SHORT_GOP = Kind(
    "short_gop.mp4",
    "libx264",
    Fraction(25),
    {"g": "16", "bf": "0"},
    muxing={"movflags": "+faststart"},
)
"""As ingest writes it; the index is at the front."""
NTSC = Kind("ntsc.mp4", "libx264", Fraction(30000, 1001), {"g": "250", "bf": "2"})
OPEN_GOP = Kind(
    "open_gop.mp4",
    "libx264",
    Fraction(47),
    {"bf": "3", "x264-params": "open-gop=1:keyint=12"},
)
"""Frames before a keyframe refer to it, so that decoding must begin one keyframe earlier."""
FRAGMENTED = Kind(
    "fragmented.mp4",
    "libx264",
    Fraction(50),
    {"g": "16", "bf": "2"},
    muxing={"movflags": "+frag_keyframe+empty_moov"},
)
"""A header that promises nothing."""
MJPEG = Kind("mjpeg.avi", "mjpeg", Fraction(50), {"qmin": "3", "qmax": "3"}, "yuvj420p")
"""What EchoNet is."""
MPEG4 = Kind("mpeg4.avi", "mpeg4", Fraction(30), {"g": "12", "bf": "2"})
"""The older AVI, with B-frames."""
KINDS = (LONG_GOP, SHORT_GOP, NTSC, OPEN_GOP, FRAGMENTED, MJPEG, MPEG4)


def numbered_frame(number: int) -> np.ndarray:
    """RGB uint8 [H, W, 3]."""
    frame = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    for bit in range(8):
        frame[: HEIGHT // 2, bit * _BLOCK : (bit + 1) * _BLOCK] = 224 if number >> bit & 1 else 32
    rows = np.random.default_rng(number).integers(60, 200, (HEIGHT // 2, WIDTH // 8, 1))
    frame[HEIGHT // 2 :] = np.repeat(rows, 8, axis=1)
    return frame


def number_of(frame: np.ndarray) -> int:
    """The number a decoded frame carries."""
    top = HEIGHT // 2
    levels = [
        frame[4 : top - 4, bit * _BLOCK + 2 : (bit + 1) * _BLOCK - 2].mean() for bit in range(8)
    ]
    return sum(int(level > 128) << bit for bit, level in enumerate(levels))


def numbers(frames: np.ndarray) -> list[int]:
    """The numbers of frames [T, H, W, 3]."""
    return [number_of(frame) for frame in frames]


def write_clip(folder: Path, kind: Kind, num_frames: int = NUM_FRAMES) -> Path:
    """Write the numbered frames 0, 1, ... as one video; returns its path."""
    path = folder / kind.name
    with av.open(str(path), "w", options=kind.muxing) as output:
        options = {"preset": "fast", **kind.options} if kind.codec == "libx264" else kind.options
        stream = output.add_stream(kind.codec, rate=kind.rate, options=options)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, kind.pixels
        stream.thread_count = 1
        output.start_encoding()
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number), format="rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """A file with sound and no picture."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=8000)
        silence = np.zeros((1, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.sample_rate = 8000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def write_trimmed(source: Path, target: Path, num_cut: int) -> Path:
    """Cut frames off the front without encoding again: an edit list hides them."""
    muxing = {"avoid_negative_ts": "disabled", "use_editlist": "1"}
    with av.open(str(source)) as old, av.open(str(target), "w", options=muxing) as new:
        stream = old.streams.video[0]
        copied = new.add_stream_from_template(stream)
        shift = round(num_cut / stream.average_rate / stream.time_base)
        for packet in old.demux(stream):
            if packet.dts is not None:
                packet.pts -= shift
                packet.dts -= shift
                packet.stream = copied
                new.mux(packet)
    return target


def overwrite(source: Path, target: Path, start: float, num_bytes: int) -> Path:
    """A copy of a file with noise over `num_bytes` from the given share of its length on."""
    content = bytearray(source.read_bytes())
    first = int(len(content) * start)
    noise = np.random.default_rng(0).integers(0, 256, num_bytes, dtype=np.uint8)
    content[first : first + num_bytes] = noise.tobytes()
    return written(target, bytes(content))


def written(path: Path, content: bytes) -> Path:
    """Write a file; returns its path."""
    path.write_bytes(content)
    return path


def cut_off(source: Path, target: Path, part: float) -> Path:
    """A copy of the first `part` of a file."""
    content = source.read_bytes()
    return written(target, content[: int(len(content) * part)])


def probe(uri: str, decoder: DecoderName = "auto") -> VideoInfo:
    """What a file holds, asked as commands ask it."""
    return open_video(uri, ReadConfig(decoder=decoder, patience_seconds=0)).probe()


def read_frames(
    uri: str, indices: Iterable[int], decoder: DecoderName = "auto", num_promised: int = 0
) -> np.ndarray:
    """Frames of a file by index, [T, H, W, 3]."""
    how = ReadConfig(decoder=decoder, patience_seconds=0)
    return open_video(uri, how).frames(indices, num_promised)


def even(num_frames: int, fps: float) -> Timing:
    """The timing of evenly spaced frames."""
    return Timing(num_frames, fps, num_frames / fps)


def shown(window: Window, num_frames: int, fps: float) -> list[int]:
    """Which of evenly spaced frames a window shows."""
    return nearest(np.arange(num_frames) / fps, window.seconds).tolist()


def error_of(call: Callable[[], Any], *hidden: Path | str) -> tuple[str, str]:
    """Stage and kind of the `ClipError` that `call` raises; `hidden` must not show in any text."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            result = call()
        except ClipError as error:
            caught = error
        else:
            raise AssertionError(f"no ClipError, but {type(result).__name__}")
    assert caught.message
    for text in (str(caught), *(str(warning.message) for warning in said)):
        assert not any(Path(name).stem in text for name in hidden), text
    return caught.stage, caught.kind


def outcome(call: Callable[[], Any]) -> Any:
    """What `call` returns, or the kind of its `ClipError`; any other exception goes through."""
    try:
        return call()
    except ClipError as error:
        return error.kind


def clip_rows(count: int = 4, **changes: Iterable[Any] | None) -> pa.Table:
    """A manifest table of clips c0, c1, ... of patients p0, p1, ...; None drops a column."""
    columns: dict[str, Any] = {
        "clip_id": [f"c{i}" for i in range(count)],
        "patient_id": [f"p{i}" for i in range(count)],
        "study_id": [f"s{i}" for i in range(count)],
        "uri": [f"videos/{i}.mp4" for i in range(count)],
        "num_frames": [NUM_FRAMES] * count,
        "native_fps": [30.0] * count,
        "height": [HEIGHT] * count,
        "width": [WIDTH] * count,
        **changes,
    }
    return pa.table({name: values for name, values in columns.items() if values is not None})


def change(path: Path, column: str, row: int, value: object) -> None:
    """Overwrite one cell of a manifest, unchecked."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[row][column] = value
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)
