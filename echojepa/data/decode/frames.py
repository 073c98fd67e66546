"""Frames out of video files.

    video = open_video("clip.mp4")
    video.probe()                                # counts frames, never trusts a header
    video.frames([0, 4, 8])                      # uint8 [3, H, W, 3], RGB
    video.frames_at(np.array([0.0, 0.1, 0.2]))   # the frames shown nearest to these seconds

A file is what its bytes say, whatever its name: `open_video` decides once, for training, probes,
evaluation and the commands about manifests. Every way in which a file can be bad ends in a
`ClipError` with a short stable kind and a message free of paths, never in a crash, a substitute or
a silently shorter clip.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from echojepa.config import Strict, changeable
from echojepa.data.decode import decord_video, dicom, video
from echojepa.data.decode.source import Source, fetch
from echojepa.data.decode.timeline import Pick, VideoInfo, nearest
from echojepa.data.decode.video import Frames

DecoderName = Literal["auto", "pyav", "decord"]


class ReadConfig(Strict):
    """How the files of clips are read."""

    decoder: DecoderName = changeable("auto")
    """What reads videos that are not DICOM: auto is PyAV, which raises cleanly on every broken
    file; decord reads local files only."""
    modalities: tuple[str, ...] = ("US",)
    """DICOM modalities that are taken; add IVUS for catheters, OT for exported copies."""
    patience_seconds: float = changeable(600.0, ge=0)
    """For how long storage that fails is asked again before the job stops."""


@dataclass(frozen=True)
class Video:
    """An open file and the decoder that its content asks for."""

    source: Source
    _probe: Callable[[Source], VideoInfo]
    _read: Callable[[Source, Pick, int], Frames]

    def probe(self) -> VideoInfo:
        """Frames, rate, duration and size.

        Raises:
            ClipError: stage "open": not_a_video, not_ultrasound, no_video_stream, no_frames,
                no_frame_rate, implausible_rate, frame_count_mismatch, unsupported; stage "decode":
                truncated, damaged, unsupported.
        """
        return self._probe(self.source)

    def frames(self, indices: Iterable[int], num_promised: int = 0) -> Frames:
        """Frames by the order in which they are shown, RGB uint8 [T, H, W, 3].

        Args:
            indices: [T], not decreasing; repeats allowed.
            num_promised: how many frames the manifest promises; fewer in the file is an error.

        Raises:
            ClipError: as `probe`.
        """
        wanted = np.array(list(indices), np.int64)
        return self._read(self.source, lambda _: wanted, num_promised)

    def frames_at(self, seconds: NDArray[np.float64], num_promised: int = 0) -> Frames:
        """The frames shown nearest to these times after the first frame; see `frames`.

        Args:
            seconds: [T], not decreasing.
        """
        return self._read(self.source, partial(nearest, wanted=seconds), num_promised)

    def digest(self) -> str:
        """SHA-256 of the file, in hexadecimal digits."""
        return hashlib.sha256(self.source.content).hexdigest()


def open_video(uri: str, how: ReadConfig | None = None) -> Video:
    """Read a whole file and decide by its content who decodes it.

    Args:
        uri: a path or URL, see `decode.source`.

    Raises:
        ClipError: stage "open": missing, unreadable, empty, forbidden.
        StorageError: the storage has failed for longer than the patience.
    """
    how = how or ReadConfig()
    source = fetch(uri, how.patience_seconds)
    if dicom.is_dicom(source.content):
        allowed = how.modalities
        return Video(
            source,
            partial(dicom.probe, modalities=allowed),
            partial(dicom.read, modalities=allowed),
        )
    read = decord_video.read if how.decoder == "decord" else video.read
    return Video(source, video.probe, read)
