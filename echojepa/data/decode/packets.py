"""The frames of a video stream as its packets tell of them, without decoding one."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echojepa.data.decode.timeline import Seconds
from echojepa.errors import ClipError


@dataclass(frozen=True)
class FrameList:
    """All frames in the order in which they are shown."""

    stamps: NDArray[np.int64]
    """Presentation times in units of the stream's time base, [n]; some may be equal."""
    keys: NDArray[np.bool_]
    """Which can be decoded by themselves, [n]."""
    seconds: Seconds
    """The same times since the first frame, [n]."""

    def address(self, position: int) -> tuple[int, int]:
        """A frame's time stamp, and how many frames before it have the same one."""
        stamp = int(self.stamps[position])
        return stamp, position - int(np.searchsorted(self.stamps, stamp, side="left"))

    def keyframe_before(self, position: int) -> int:
        """Time stamp of the last keyframe from which decoding surely passes this frame."""
        stamp = int(self.stamps[position])
        # Seeking to a time stamp that several frames share may skip some of them.
        shared = int((self.stamps == stamp).sum()) > 1
        before = self.keys & ((self.stamps < stamp) if shared else (self.stamps <= stamp))
        return int(self.stamps[np.flatnonzero(before)[-1]]) if before.any() else self.first

    @property
    def first(self) -> int:
        """Time stamp of the first frame."""
        return int(self.stamps[0])


def list_frames(container: Any, stream: Any, content: bytes) -> FrameList:
    """Walk all packets of a stream.

    Args:
        content: of the file, for what FFmpeg does not say of it.

    Raises:
        ClipError: no_frames; truncated: fewer frames than the header promises; unsupported: no
            presentation times.
    """
    found: list[tuple[int, bool]] = []
    num_promised = stream.frames
    for packet in container.demux(stream):
        if packet.is_discard:
            num_promised = 0  # an edit list hides frames that the header counts
        elif packet.size:
            stamp = packet.pts if packet.pts is not None else packet.dts
            if stamp is None:
                raise ClipError("decode", "unsupported", "a frame without a time stamp")
            found.append((stamp, bool(packet.is_keyframe)))
    if not found:
        raise ClipError("open", "no_frames", "the video stream holds no frame")
    stamps, keys = (np.array(column) for column in zip(*found, strict=True))
    if container.format.name == "avi":
        _check_avi(stream, stamps, content)
    elif len(found) < num_promised:
        what = f"{len(found)} of {num_promised} frames are there"
        raise ClipError("decode", "truncated", what)
    order = np.argsort(stamps, kind="stable")
    stamps = stamps[order]
    seconds = (stamps - stamps[0]) * float(stream.time_base)
    return FrameList(stamps, keys[order], seconds)


def _check_avi(stream: Any, stamps: NDArray[np.int64], content: bytes) -> None:
    """In AVI the header counts slots of equal length, of which some may hold no frame."""
    if stream.codec_context.has_b_frames and bool((np.diff(stamps) >= 0).all()):
        raise ClipError("open", "unsupported", "AVI with B-frames and no presentation times")
    num_slots = int(stamps.max()) + 1
    (size,) = struct.unpack_from("<I", content, 4)  # of the RIFF chunk, without its head of 8
    is_whole = 0 < size <= len(content) - 8
    if num_slots < stream.frames and not is_whole:
        what = f"{num_slots} of {stream.frames} frames are there"
        raise ClipError("decode", "truncated", what)
