"""When the heart does what: one law of the cardiac cycle, in seconds since the R wave.

Time 0 is end-diastole (the R wave). The ventricle waits (isovolumic contraction), ejects, relaxes,
fills early, rests (diastasis; none at fast rates) and is topped up by the atrium.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_SYSTOLE_SECONDS = 0.35
"""Systole of a beat of one second."""
_CONTRACTION_SECONDS = 0.04
"""Isovolumic contraction: from the R wave's mitral closure to the opening of the aortic valve."""


def _rise(share: np.ndarray | float) -> np.ndarray:
    """A smooth step from 0 (share <= 0) to 1 (share >= 1) with flat ends."""
    x = np.clip(share, 0.0, 1.0)
    return np.asarray(x * x * (3.0 - 2.0 * x))


@dataclass(frozen=True)
class Cycle:
    """One heart's rhythm."""

    heart_rate: float
    """Beats per minute."""
    early_share: float
    """Share of the stroke volume that returns in early filling (E wave), 0 to 1."""

    @property
    def beat_seconds(self) -> float:
        """From R wave to R wave."""
        return 60.0 / self.heart_rate

    @property
    def systole_seconds(self) -> float:
        """From end-diastole to end-systole.

        It goes with the square root of the beat (Bazett, Heart 7:353, 1920), so that it takes a
        larger share of a short beat: 30 % at 45 beats per minute, 57 % at 160.
        """
        return _SYSTOLE_SECONDS * self.beat_seconds**0.5

    def emptying(self, seconds: np.ndarray | float) -> np.ndarray:
        """Share of the stroke volume that is out of the ventricle: 0 at ED, 1 at ES."""
        time = np.mod(seconds, self.beat_seconds)
        early_start, early_end, late_start = self._filling()
        ejection = self.systole_seconds - _CONTRACTION_SECONDS
        out = _rise((time - _CONTRACTION_SECONDS) / ejection)
        early = _rise((time - early_start) / (early_end - early_start))
        late = _rise((time - late_start) / (self.beat_seconds - late_start))
        return np.asarray(out - self.early_share * early - (1.0 - self.early_share) * late)

    def inflow_opening(self, seconds: np.ndarray | float) -> np.ndarray:
        """How far the mitral and tricuspid valves are open: 0 shut, 1 wide open.

        The M-shape of the anterior mitral leaflet: E peak, half shut in diastasis, A peak.
        """
        early_start, early_end, late_start = self._filling()
        late_middle = 0.5 * (late_start + self.beat_seconds)
        early_peak = early_start + 0.35 * (early_end - early_start)
        knots = [0.0, early_start, early_peak, early_end, late_start, late_middle]
        heights = [0.0, 0.0, 1.0, 0.35, 0.3, 0.75]
        time = np.mod(seconds, self.beat_seconds)
        return np.interp(time, [*knots, self.beat_seconds], [*heights, 0.0])

    def _filling(self) -> tuple[float, float, float]:
        """Start and end of early filling and start of atrial filling, seconds.

        Each part has its usual length, but at fast rates a fixed share of a short diastole.
        """
        diastole = self.beat_seconds - self.systole_seconds
        early_start = self.systole_seconds + min(0.08, 0.15 * diastole)
        early_end = early_start + min(0.25, 0.5 * diastole)
        late_start = self.beat_seconds - min(0.14, 0.3 * diastole)
        return early_start, early_end, late_start
