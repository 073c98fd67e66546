"""Frames out of video files: a small registry of decoders behind two functions.

    info = probe("clip.mp4")                       # counts frames, never trusts a header
    frames = read_frames("clip.mp4", [0, 4, 8])    # uint8 [3, H, W, 3], RGB

Which decoder reads what is one table, `_choose`. Every way in which a file can be bad ends in a
`ClipError` with a short stable kind and a message free of paths, never in a crash, a substitute or
a silently shorter clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from echojepa.data.decode import dicom, remote, video
from echojepa.data.decode.video import Frames, Source

PATIENCE_SECONDS = 30.0
"""With an object store that fails, where nothing else is said."""
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
    "pyav": Decoder(video.probe_pyav, video.read_pyav),
    "decord": Decoder(video.probe_pyav, video.read_decord),
    "dicom": Decoder(dicom.probe, dicom.read),
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
    uri: str,
    indices: Iterable[int],
    decoder: DecoderName = "auto",
    num_promised: int = 0,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Frames:
    """Decode frames by presentation index (not decreasing; repeats allowed).

    Args:
        uri: a local path, or a URL of a file system that pyarrow knows (`s3://`, `gs://`).
        indices: native frame indices, [T].
        num_promised: how many frames the manifest promises; fewer in the file is an error.
        patience_seconds: for how long an object store that fails is asked again.

    Returns:
        uint8 RGB, [T, H, W, 3].

    Raises:
        ClipError: stage "open": missing, unreadable, not_a_video, no_video_stream, no_frames;
            stage "decode": truncated, damaged, unsupported. Zero-byte local files are "empty".
        StorageError: an object store has failed for longer than `patience_seconds`.
    """
    chosen = _choose(uri, decoder)
    source = open_source(uri, patience_seconds)
    return chosen.read(source, [int(i) for i in indices], num_promised)


def open_source(uri: str, patience_seconds: float = PATIENCE_SECONDS) -> Source:
    """A local path as it is, a remote object as bytes in memory; see `remote.fetch` for errors."""
    if "://" not in uri:
        return uri
    return remote.fetch(uri, patience_seconds)
