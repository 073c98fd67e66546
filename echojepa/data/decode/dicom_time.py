"""Times of the frames of a multi-frame DICOM (PS3.3 C.7.6.5)."""

from __future__ import annotations

from typing import Any

import numpy as np

from echojepa.data.decode.timeline import Seconds, check_rate
from echojepa.errors import ClipError


def frame_seconds(data: Any, num_frames: int) -> Seconds:
    """Times of all frames since the first, [n].

    What FrameIncrementPointer names counts; otherwise, in this order, FrameTimeVector, FrameTime,
    CineRate, RecommendedDisplayFrameRate. A 0 means that the field is not known.

    Raises:
        ClipError: no_frame_rate; implausible_rate; frame_count_mismatch: the vector has not one
            entry for every frame.
    """
    if num_frames == 1:
        return np.zeros(1)
    vector = data.get("FrameTimeVector")
    has_vector = vector is not None and not _points_to(data, "FrameTime")
    if has_vector:
        return _by_vector(np.atleast_1d(np.asarray(vector, np.float64)), num_frames)
    if data.get("FrameTime"):
        rate = 1000.0 / float(data.FrameTime)
    else:
        rate = float(data.get("CineRate") or data.get("RecommendedDisplayFrameRate") or 0.0)
    if not rate:
        raise ClipError("open", "no_frame_rate", "no FrameTime, CineRate or display rate")
    return np.arange(num_frames) / check_rate(rate)


def _by_vector(steps: Seconds, num_frames: int) -> Seconds:
    """From the milliseconds between each frame and the one before it; the first step is 0."""
    if len(steps) != num_frames:
        what = f"FrameTimeVector has {len(steps)} entries for {num_frames} frames"
        raise ClipError("open", "frame_count_mismatch", what)
    if steps[1:].min() < 0:
        raise ClipError("open", "implausible_rate", "FrameTimeVector goes backwards")
    seconds = np.asarray(np.cumsum(steps) / 1000.0)
    seconds -= seconds[0]
    check_rate((num_frames - 1) / seconds[-1] if seconds[-1] > 0 else float("inf"))
    return seconds


def _points_to(data: Any, keyword: str) -> bool:
    """Whether FrameIncrementPointer names a field that is there."""
    pointer = data.get("FrameIncrementPointer")
    tags = pointer if isinstance(pointer, list) else [pointer]
    return any(keyword in data and tag == data[keyword].tag for tag in tags)
