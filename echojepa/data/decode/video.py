"""MP4, AVI and the like, through FFmpeg (PyAV)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import av
import av.logging
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from echojepa.data.decode.packets import FrameList, list_frames
from echojepa.data.decode.picture import Picture, picture_of
from echojepa.data.decode.source import Source
from echojepa.data.decode.timeline import Pick, VideoInfo, check_positions, frame_rate
from echojepa.errors import ClipError

Frames = NDArray[np.uint8]
Address = tuple[int, int]
"""A frame's time stamp, and how many before it have the same."""

_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm"
"""Demuxers in which the exact frame of any time can be found. FFmpeg knows hundreds; some read any
file (a DICOM of JPEGs is a raw MJPEG stream to it), some open other files and URLs, and transport
and program streams cannot be cut exactly."""

av.logging.set_level(av.logging.PANIC)


def probe(source: Source) -> VideoInfo:
    """What the file holds; one frame is decoded to see how it lies. See `frames` for errors."""
    with opened(source) as (container, stream):
        listed = list_frames(container, stream, source.content)
        stated = stream.average_rate or stream.guessed_rate
        rate = frame_rate(listed.seconds, float(stated) if stated else None)
        picture = first_picture(container, stream, listed)
    duration = float(listed.seconds[-1]) + 1 / rate
    return VideoInfo(len(listed.stamps), rate, duration, *picture.shown)


def read(source: Source, pick: Pick, num_promised: int) -> Frames:
    """Frame-exact random access: one pass over the packets, then decode from the keyframe before.

    One demux pass gives the exact presentation times; decoding starts at the last keyframe before
    the first wanted frame, skips frames nobody refers to on the way, and stops at the last one.
    """
    with opened(source) as (container, stream):
        listed = list_frames(container, stream, source.content)
        positions = pick(listed.seconds)
        check_positions(positions, len(listed.stamps), num_promised)
        addresses = [listed.address(int(p)) for p in positions]
        start = listed.keyframe_before(int(positions.min()))
        found = _decode(container, stream, set(addresses), start)
        if len(found) < len(set(addresses)):  # an index that points past its keyframe
            found = _decode(container, stream, set(addresses), listed.first)
    missing = set(addresses) - set(found)
    if missing:
        raise ClipError("decode", "damaged", f"{len(missing)} frames not decodable")
    if len({frame.shape for frame in found.values()}) > 1:
        raise ClipError("decode", "unsupported", "the picture size changes within the clip")
    return np.stack([found[address] for address in addresses])


@contextmanager
def opened(source: Source) -> Iterator[tuple[Any, Any]]:
    """An open container and its best video stream; codec errors become `ClipError`s."""
    stage, kind = "open", "not_a_video"
    options = {"format_whitelist": _CONTAINERS}
    file = io.BytesIO(source.content)
    try:
        with av.open(
            file, mode="r", metadata_errors="ignore", container_options=options
        ) as container:
            stream = container.streams.best("video")
            if stream is None:
                raise ClipError("open", "no_video_stream", "the file has no video stream")
            if stream.codec_context is None:
                raise ClipError("open", "unsupported", "FFmpeg knows no decoder for the codec")
            stream.codec_context.thread_count = 1
            if stream.codec_context.name == "mjpeg":  # says nothing of damage otherwise
                stream.codec_context.options = {"err_detect": "explode"}
            stage, kind = "decode", "damaged"
            yield container, stream
    except (av.FFmpegError, UnicodeDecodeError) as error:
        what = f"FFmpeg: {type(error).__name__}"
        if kind == "not_a_video":
            what = f"no readable DICOM, MP4, MOV, AVI, Matroska or WebM ({what})"
        raise ClipError(stage, kind, what) from None


def first_picture(container: Any, stream: Any, listed: FrameList) -> Picture:
    """How the pictures of a stream lie, by its first frame."""
    container.seek(listed.first, stream=stream, backward=True)
    for frame in container.decode(stream):
        return picture_of(stream, frame)
    raise ClipError("decode", "damaged", "the first frame is not decodable")


def _decode(container: Any, stream: Any, wanted: set[Address], start: int) -> dict[Address, Frames]:
    """Decode the wanted frames, reading from the keyframe at or before `start`."""
    container.seek(start, stream=stream, backward=True)
    context = stream.codec_context
    to_rgb = _ToRgb(stream)
    first, last = min(wanted)[0], max(wanted)
    found: dict[Address, Frames] = {}
    seen: dict[int, int] = {}  # how many frames of a time stamp have come out
    for packet in container.demux(stream):
        stamp = packet.pts if packet.pts is not None else packet.dts
        preroll = stamp is not None and stamp < first
        context.skip_frame = "NONREF" if preroll else "DEFAULT"
        for frame in packet.decode():
            at = frame.pts if frame.pts is not None else frame.dts
            address = (at, seen.get(at, 0))
            seen[at] = address[1] + 1
            if address in wanted and not frame.is_corrupt:
                found[address] = to_rgb(frame)
            if at is not None and address >= last:
                return found
    return found


class _ToRgb:
    """Decoded frames as RGB, upright and with square pixels."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._picture: Picture | None = None
        self._reformat = VideoReformatter().reformat  # kept: setting it up costs more than a use

    def __call__(self, frame: Any) -> Frames:
        picture = self._picture or picture_of(self._stream, frame)
        if (picture.height, picture.width) != (frame.height, frame.width):
            picture = picture_of(self._stream, frame)
        self._picture = picture
        height, width = picture.square
        converted = self._reformat(frame, width=width, height=height, format="rgb24")
        return picture.turned(np.asarray(converted.to_ndarray(), np.uint8))
