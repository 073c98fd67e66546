"""What machines burn into their pictures: a logo, settings and an electrocardiogram."""

from __future__ import annotations

import cv2
import numpy as np

from echojepa.phantom.anatomy.cycle import Rhythm
from echojepa.phantom.machine.vendors import Knobs

_SWEEP_SECONDS = 3.0
"""How long the trace takes across the frame."""
_QRS = ((-0.03, -0.12, 0.010), (0.0, 1.0, 0.012), (0.03, -0.25, 0.012))
"""Seconds after the R wave, height relative to it, width in seconds."""
_T_HEIGHT, _P_HEIGHT = 0.28, 0.14
_BRIGHTNESS = 190


def burn_in(
    frames: np.ndarray, knobs: Knobs, rhythm: Rhythm, seconds: np.ndarray, banner: str | None
) -> None:
    """Draw on frames uint8 [T, H, W] or [T, H, W, 3], in place.

    The text names the vendor and settings that have nothing to do with the patient; `banner` is
    more text for the top, if there is to be any (an identity to be removed, say).
    """
    size = frames.shape[1]
    scale = size / 460.0
    vendor = knobs.vendor
    settings = f"{0.154 / knobs.wavelength_cm:.1f}MHz {knobs.native_fps:.0f}Hz"
    for frame in frames:
        for line, text in enumerate((vendor.logo, settings)):
            _write(frame, text, line, vendor.text_corner, scale)
        if banner is not None:
            other = "right" if vendor.text_corner == "left" else "left"
            for line, text in enumerate(banner.splitlines()):
                _write(frame, text, line, other, scale)
    _trace(frames, rhythm, seconds)


def _write(frame: np.ndarray, text: str, line: int, corner: str, scale: float) -> None:
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    x = 2 if corner == "left" else frame.shape[1] - width - 2
    y = (line + 1) * (height + 3)
    color = (_BRIGHTNESS,) * 3
    cv2.putText(frame, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, color, 1, cv2.LINE_AA)


def _trace(frames: np.ndarray, rhythm: Rhythm, seconds: np.ndarray) -> None:
    """A trace that is drawn from left to right along the lower edge, again and again."""
    size = frames.shape[1]
    columns = np.arange(size)
    base, height = size - max(size // 28, 3), size / 14.0
    for frame, now in zip(frames, seconds, strict=True):
        head = ((now - seconds[0]) / _SWEEP_SECONDS) % 1.0 * size
        # What is right of the head was drawn one sweep ago.
        ago = np.where(columns <= head, head - columns, head - columns + size)
        level = _voltage(rhythm, now - ago / size * _SWEEP_SECONDS)
        rows = np.clip(np.rint(base - height * level), 0, size - 1).astype(np.int32)
        drawn = np.abs(columns - head - 2.0) > 2.0
        points = np.stack([columns, rows], axis=1)
        for start in np.flatnonzero(drawn[:-1] & drawn[1:]):
            ends = points[start : start + 2].tolist()
            cv2.line(frame, ends[0], ends[1], (_BRIGHTNESS,) * 3, 1, cv2.LINE_AA)


def _voltage(rhythm: Rhythm, times: np.ndarray) -> np.ndarray:
    """The electrocardiogram at times [n]; an R wave is 1. No P waves without atrial beats."""
    since = times[:, None] - rhythm.starts[None, :]
    systole = np.array([beat.systole_seconds for beat in rhythm.beats])
    pause = np.minimum(np.array([beat.beat_seconds for beat in rhythm.beats]), 0.8)
    voltage = sum(height * _bump(since - at, width) for at, height, width in _QRS)
    voltage = voltage + _T_HEIGHT * _bump(since - 0.77 * systole, 0.13 * systole)
    if rhythm.beats[0].early_share < 1.0:
        voltage = voltage + _P_HEIGHT * _bump(since + 0.2 * pause, 0.03 * pause)
    return np.asarray(voltage.sum(axis=1))


def _bump(seconds: np.ndarray, width: np.ndarray | float) -> np.ndarray:
    return np.asarray(np.exp(-0.5 * (seconds / width) ** 2))
