"""Frames out of video files: a small registry of decoders behind two functions.

    info = probe("clip.mp4")                       # counts frames, never trusts a header
    frames = read_frames("clip.mp4", [0, 4, 8])    # uint8 [3, H, W, 3], RGB

Which decoder reads what is one table, `_choose`. Every way in which a file can be bad ends in a
`ClipError` with a short stable kind and a message free of paths, never in a crash, a substitute or
a silently shorter clip.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, TypeVar

import pyarrow as pa
import pyarrow.fs

from echojepa.data import decode_dicom, decode_video
from echojepa.data.decode_video import Frames, Source
from echojepa.errors import ClipError

T = TypeVar("T")
DecoderName = Literal["auto", "pyav", "decord", "dicom"]


@dataclass(frozen=True)
class VideoInfo:
    """What a file really holds."""

    num_frames: int
    native_fps: float
    height: int
    width: int


@dataclass(frozen=True)
class Decoder:
    """One way to read a container."""

    probe: Callable[[Source], tuple[int, float, int, int]]
    """Number of frames, frames per second, height, width."""
    read: Callable[[Source, Sequence[int], int], Frames]
    """`read(source, indices, num_promised)` returns uint8 RGB [T, H, W, 3]."""


_DECODERS: dict[str, Decoder] = {
    "pyav": Decoder(decode_video.probe_pyav, decode_video.read_pyav),
    "decord": Decoder(decode_video.probe_pyav, decode_video.read_decord),
    "dicom": Decoder(decode_dicom.probe, decode_dicom.read),
}


def _choose(uri: str, decoder: DecoderName) -> Decoder:
    """DICOM by suffix; otherwise PyAV.

    PyAV raises cleanly on every broken file tried, where decord 0.6 crashes the process on some
    that it reads from memory, and from a keyframe on it decodes 16 frames with less work; decord
    stays a choice for local files.
    """
    if decoder != "auto":
        return _DECODERS[decoder]
    is_dicom = PurePosixPath(uri).suffix.lower() in {".dcm", ".dicom"}
    return _DECODERS["dicom" if is_dicom else "pyav"]


def probe(uri: str, decoder: DecoderName = "auto") -> VideoInfo:
    """Count frames and measure rate and size of a video by walking its packets.

    Raises:
        ClipError: see `read_frames`.
    """
    return VideoInfo(*_choose(uri, decoder).probe(open_source(uri)))


def read_frames(
    uri: str, indices: Iterable[int], decoder: DecoderName = "auto", num_promised: int = 0
) -> Frames:
    """Decode frames by presentation index (not decreasing; repeats allowed).

    Args:
        uri: a local path, or a URL of a file system that pyarrow knows (`s3://`, `gs://`).
        indices: native frame indices, [T].
        num_promised: how many frames the manifest promises; fewer in the file is an error.

    Returns:
        uint8 RGB, [T, H, W, 3].

    Raises:
        ClipError: stage "open": missing, unreadable, not_a_video, no_video_stream, no_frames;
            stage "decode": truncated, damaged, unsupported. Zero-byte local files are "empty".
    """
    chosen = _choose(uri, decoder)
    return chosen.read(open_source(uri), [int(i) for i in indices], num_promised)


def attempt(action: Callable[[], T]) -> tuple[T | None, str]:
    """The one boundary at which a clip may fail: its value, or a problem that can be recorded.

    Decoders are other people's code over other people's files. Whatever they raise must not take
    the other clips of a block down, so everything is caught here, and only here; it is counted
    (`max_bad_fraction`) and recorded (`rejected.parquet`), never dropped.

    Returns:
        (value, "") or (None, "stage|kind|message").
    """
    try:
        return action(), ""
    except ClipError as error:
        return None, f"{error.stage}|{error.kind}|{error.message}"
    except Exception as error:  # noqa: BLE001 - see above
        return None, f"decode|unexpected|{type(error).__name__}"


def open_source(uri: str) -> Source:
    """A local path as it is, a remote object as bytes in memory (one GET)."""
    if "://" not in uri:
        return uri
    try:
        filesystem, path = pa.fs.FileSystem.from_uri(uri)
        with filesystem.open_input_stream(path) as stream:
            return io.BytesIO(stream.read())
    except FileNotFoundError:
        raise ClipError("open", "missing", "no such object") from None
    except (OSError, pa.ArrowException) as error:
        raise ClipError("open", "unreadable", type(error).__name__) from None
