"""From the picture that a file stores to the one that people see: upright, with square pixels."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from av.sidedata.sidedata import Type
from numpy.typing import NDArray

from echojepa.errors import ClipError

_ONE = 1 << 16
"""1 in the 16.16 fixed point of a display matrix."""
_MOST_ASPECT = 4
Turn = tuple[int, int, int, int]
"""Display x' = a x + c y and y' = b x + d y as (a, b, c, d), each -1, 0 or 1."""
UPRIGHT: Turn = (1, 0, 0, 1)


@dataclass(frozen=True)
class Picture:
    """How a stored picture becomes the shown one."""

    height: int
    """As stored, like `width`."""
    width: int
    aspect: Fraction = Fraction(1)
    """Width over height of one pixel."""
    turn: Turn = UPRIGHT

    @property
    def square(self) -> tuple[int, int]:
        """Height and width with square pixels, before turning; nothing is made smaller."""
        if self.aspect >= 1:
            return self.height, round(self.width * self.aspect)
        return round(self.height / self.aspect), self.width

    @property
    def shown(self) -> tuple[int, int]:
        """Height and width as people see it."""
        height, width = self.square
        return (height, width) if self.turn[0] else (width, height)

    @property
    def is_plain(self) -> bool:
        """Whether it is shown as it is stored."""
        return self.aspect == 1 and self.turn == UPRIGHT

    def turned(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A frame with square pixels, [H, W, 3], upright."""
        a, b, c, d = self.turn
        if a == 0:
            frame = frame.swapaxes(0, 1)
        rows, columns = (d, a) if a else (b, c)
        return frame[::rows, ::columns]


def picture_of(stream: Any, frame: Any) -> Picture:
    """The picture of a stream of FFmpeg's, by its headers and one of its decoded frames.

    Raises:
        ClipError: pixels of an impossible shape, or a rotation by other than quarter turns.
    """
    aspect = check_aspect(Fraction(stream.sample_aspect_ratio or 1))
    return Picture(frame.height, frame.width, aspect, _turn(frame))


def check_aspect(aspect: Fraction) -> Fraction:
    """Return a plausible shape of pixels, width over height.

    Raises:
        ClipError: one side is more than four times the other.
    """
    if not Fraction(1, _MOST_ASPECT) <= aspect <= _MOST_ASPECT:
        raise ClipError("open", "unsupported", f"pixels {float(aspect):.3g} times as wide as high")
    return aspect


def _turn(frame: Any) -> Turn:
    side_data = frame.side_data.get(Type.DISPLAYMATRIX)
    if side_data is None:
        return UPRIGHT
    matrix = np.frombuffer(bytes(side_data), np.int32).reshape(3, 3)[:2, :2]
    a, b, c, d = (matrix // _ONE).ravel().tolist()
    whole = np.array_equal(matrix, (matrix // _ONE) * _ONE)
    quarter = {(abs(a), abs(b), abs(c), abs(d))} & {(1, 0, 0, 1), (0, 1, 1, 0)}
    if not whole or not quarter:
        raise ClipError("open", "unsupported", "a rotation by other than quarter turns")
    return a, b, c, d
