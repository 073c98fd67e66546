"""Which frame a video shows at which time.

Times are seconds since the first frame. They come from the file itself, frame by frame; a rate is
only a summary of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from echojepa.errors import ClipError

Seconds = NDArray[np.float64]
"""Times of frames, [n], not decreasing; the first is 0."""
Positions = NDArray[np.int64]
"""Which frames, counted in the order in which they are shown, [T]."""
Pick = Callable[[Seconds], Positions]
"""Chooses frames of a file by their times."""

LEAST_FPS, MOST_FPS = 1.0, 1000.0
_STATED_TOLERANCE = 0.01
_TIE_SECONDS = 1e-6


class VideoInfo(NamedTuple):
    """What a file really holds."""

    num_frames: int
    native_fps: float
    """Frames per second, on average."""
    duration_seconds: float
    """From the first frame to the last, and one mean frame."""
    height: int
    """Of the picture as it is shown: upright, with square pixels."""
    width: int


def nearest(frames: Seconds, wanted: NDArray[np.float64]) -> Positions:
    """The frames nearest in time to the wanted times, [n] and [T] to [T].

    A time halfway between two frames takes the later one, so that equal distances never alternate;
    times beyond the end take the last frame.
    """
    middles = (frames[1:] + frames[:-1]) / 2
    return np.searchsorted(middles, wanted + _TIE_SECONDS, side="right").astype(np.int64)


def frame_rate(frames: Seconds, stated: float | None) -> float:
    """Frames per second: as stated if the times agree to one percent, else as they say.

    Raises:
        ClipError: the rate is not between 1 and 1,000; a still without one has a rate of 1.
    """
    if len(frames) == 1:
        return stated if stated and LEAST_FPS <= stated <= MOST_FPS else 1.0
    span = float(frames[-1])
    measured = (len(frames) - 1) / span if span > 0 else float("inf")
    agree = stated and abs(stated / measured - 1) < _STATED_TOLERANCE
    return check_rate(stated if stated and agree else measured)


def check_rate(fps: float) -> float:
    """Return a plausible rate.

    Raises:
        ClipError: it is not between 1 and 1,000 frames per second.
    """
    if not LEAST_FPS <= fps <= MOST_FPS:
        what = f"{fps:.4g} frames per second, not between {LEAST_FPS:g} and {MOST_FPS:,g}"
        raise ClipError("open", "implausible_rate", what)
    return fps


def check_positions(positions: Positions, num_frames: int, num_promised: int) -> None:
    """Raise `ClipError` if the file has fewer frames than the manifest promises, or than wanted."""
    needed = max(num_promised, int(positions.max()) + 1)
    if num_frames < needed:
        raise ClipError("decode", "truncated", f"{num_frames} of {needed} frames are there")
