"""mp4, avi and whatever else FFmpeg reads, through PyAV and decord."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import av.logging
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from echojepa.errors import ClipError

Frames = NDArray[np.uint8]
Source = str | io.BytesIO

_UNSEEKABLE = {"avi", "mpeg", "mpegts"}
"""Containers in which decord seeks to wrong frames of codecs with motion prediction."""

av.logging.set_level(av.logging.PANIC)


def probe_pyav(source: Source) -> tuple[int, float, int, int]:
    """Number of frames, frames per second, height, width. See `decode.read_frames` for errors."""
    with _opened(source) as (container, stream):
        times = _presentation_times(container, stream, 0)
        rate = stream.average_rate or stream.guessed_rate
        if not rate:
            raise ClipError("open", "no_frame_rate", "the container states no frame rate")
        return len(times), float(rate), stream.height, stream.width


def read_pyav(source: Source, indices: Sequence[int], num_promised: int) -> Frames:
    """Frame-exact random access: one pass over the packets, then decode from the keyframe before.

    One demux pass gives the exact presentation times; decoding starts at the last keyframe before
    the first wanted frame, skips frames nobody refers to on the way, and stops at the last one.
    """
    with _opened(source) as (container, stream):
        times = _presentation_times(container, stream, max(num_promised, max(indices) + 1))
        order = sorted(times)
        wanted = {order[i] for i in indices}
        start = max((t for t, key in times.items() if key and t <= min(wanted)), default=order[0])
        found = _decode(container, stream, wanted, start)
        if len(found) < len(wanted):  # an index that points past its keyframe: from the beginning
            found = _decode(container, stream, wanted, order[0])
        if len(found) < len(wanted):
            raise ClipError("decode", "damaged", f"{len(wanted) - len(found)} frames not decodable")
    return _stack([found[order[i]] for i in indices])


def read_decord(source: Source, indices: Sequence[int], num_promised: int) -> Frames:
    """The same through decord, for local files only: from memory it can crash the process."""
    import decord

    if not isinstance(source, str):
        raise ClipError("open", "unsupported", "decord reads local files; use pyav for remote ones")
    needed = max(num_promised, max(indices) + 1)
    with _opened(source) as (container, stream):
        num_frames = len(_presentation_times(container, stream, needed))
        seeks = stream.codec_context.name == "mjpeg" or not _UNSEEKABLE & {container.format.name}
    try:
        reader = decord.VideoReader(source, num_threads=1)
        if not seeks or len(reader) != num_frames:
            raise ClipError("open", "unsupported", "decord seeks wrongly in it; use pyav")
        frames: Frames = reader.get_batch(list(indices)).asnumpy()
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        raise ClipError("decode", "damaged", type(error).__name__) from None
    return frames


@contextmanager
def _opened(source: Source) -> Iterator[tuple[Any, Any]]:
    """An open container and its first video stream; codec errors become `ClipError`s."""
    if isinstance(source, str):
        _check_file(source)
    stage, kind = "open", "not_a_video"
    try:
        with av.open(source, mode="r", metadata_errors="ignore") as container:
            if not container.streams.video:
                raise ClipError("open", "no_video_stream", "the file has no video stream")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise ClipError("open", "unsupported", "FFmpeg knows no decoder for the codec")
            stream.codec_context.thread_count = 1
            if stream.codec_context.name == "mjpeg":  # says nothing of damage otherwise
                stream.codec_context.options = {"err_detect": "explode"}
            stage, kind = "decode", "damaged"
            yield container, stream
    except (av.FFmpegError, UnicodeDecodeError) as error:
        raise ClipError(stage, kind, f"FFmpeg: {type(error).__name__}") from None


def _check_file(path: str) -> None:
    file = Path(path)
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        raise ClipError("open", "missing", "no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise ClipError("open", "unreadable", type(error).__name__) from None
    if size == 0:
        raise ClipError("open", "empty", "the file has zero bytes")


def _check_count(num_found: int, num_header: int, num_needed: int) -> None:
    if num_found == 0:
        raise ClipError("open", "no_frames", "the video stream holds no frame")
    promised = max(num_header, num_needed)
    if num_found < promised:
        raise ClipError("decode", "truncated", f"{num_found} of {promised} frames are there")


def _presentation_times(container: Any, stream: Any, num_needed: int) -> dict[int, bool]:
    """Presentation time of every frame and whether it is a keyframe, without decoding."""
    times: dict[int, bool] = {}
    num_promised = stream.frames
    for packet in container.demux(stream):
        if packet.is_discard:
            num_promised = 0  # an edit list hides frames that the header counts
        elif packet.size:
            time = packet.pts if packet.pts is not None else packet.dts
            if time is None:
                raise ClipError("decode", "unsupported", "a frame without a time stamp")
            times[time] = bool(packet.is_keyframe)
    order = list(times)
    if (
        container.format.name == "avi"
        and stream.codec_context.has_b_frames
        and order == sorted(order)
    ):
        raise ClipError("open", "unsupported", "AVI with B-frames and no presentation times")
    _check_count(len(times), num_promised, num_needed)
    return times


def _decode(container: Any, stream: Any, wanted: set[int], start: int) -> dict[int, Frames]:
    """Decode the frames at `wanted` times, reading from the keyframe at or before `start`."""
    container.seek(start, stream=stream, backward=True)
    context = stream.codec_context
    to_rgb = VideoReformatter()  # kept: setting up a conversion costs more than one conversion
    first, last = min(wanted), max(wanted)
    found: dict[int, Frames] = {}
    for packet in container.demux(stream):
        time = packet.pts if packet.pts is not None else packet.dts
        preroll = time is not None and time < first
        context.skip_frame = "NONREF" if preroll else "DEFAULT"
        for frame in packet.decode():
            at = frame.pts if frame.pts is not None else frame.dts
            if at in wanted and not frame.is_corrupt:
                found[at] = np.asarray(
                    to_rgb.reformat(frame, format="rgb24").to_ndarray(), np.uint8
                )
            if at is not None and at >= last:
                return found
    return found


def _stack(frames: list[Frames]) -> Frames:
    if len({frame.shape for frame in frames}) > 1:
        raise ClipError("decode", "unsupported", "the picture size changes within the clip")
    return np.stack(frames)
