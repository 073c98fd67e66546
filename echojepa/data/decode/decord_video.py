"""The same videos through decord: a second opinion, for local files.

decord 0.6 crashes the process on some broken files that it reads from memory, and seeks to wrong
frames of codecs with motion prediction in AVI. Packets are counted by PyAV first.
"""

from __future__ import annotations

from echojepa.data.decode import video
from echojepa.data.decode.packets import list_frames
from echojepa.data.decode.source import Source
from echojepa.data.decode.timeline import Pick, check_positions
from echojepa.errors import ClipError


def read(source: Source, pick: Pick, num_promised: int) -> video.Frames:
    """See `video.read`; what decord can't read exactly is unsupported.

    Raises:
        ClipError: also for files that are not on a file system of this machine.
    """
    import decord

    if source.path is None:
        raise ClipError("open", "unsupported", "decord reads local files; use pyav for remote ones")
    with video.opened(source) as (container, stream):
        listed = list_frames(container, stream, source.content)
        positions = pick(listed.seconds)
        check_positions(positions, len(listed.stamps), num_promised)
        seeks = stream.codec_context.name == "mjpeg" or container.format.name != "avi"
        plain = video.first_picture(container, stream, listed).is_plain
    try:
        reader = decord.VideoReader(source.path, num_threads=1)
        if not seeks or not plain or len(reader) != len(listed.stamps):
            raise ClipError("open", "unsupported", "decord reads it wrongly; use pyav")
        frames: video.Frames = reader.get_batch(positions.tolist()).asnumpy()
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        raise ClipError("decode", "damaged", type(error).__name__) from None
    return frames
