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
        return float(_SYSTOLE_SECONDS * self.beat_seconds**0.5)

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

        The M-shape of the anterior mitral leaflet: E peak, half shut in diastasis, A peak, unless
        the atria don't contract.
        """
        early_start, early_end, late_start = self._filling()
        late_middle = 0.5 * (late_start + self.beat_seconds)
        early_peak = early_start + 0.35 * (early_end - early_start)
        knots = [0.0, early_start, early_peak, early_end]
        heights = [0.0, 0.0, 1.0, 0.35]
        if self.early_share < 1.0:
            knots, heights = [*knots, late_start, late_middle], [*heights, 0.3, 0.75]
        time = np.mod(seconds, self.beat_seconds)
        return np.interp(time, [*knots, self.beat_seconds], [*heights, 0.0])

    def outflow_opening(self, seconds: np.ndarray | float) -> np.ndarray:
        """How far the aortic and pulmonary valves are open: wide open for most of ejection."""
        time = np.mod(seconds, self.beat_seconds)
        start, end = _CONTRACTION_SECONDS, self.systole_seconds
        share = (time - start) / (end - start)
        return np.interp(share, [0.0, 0.12, 0.8, 1.0], [0.0, 1.0, 0.8, 0.0], left=0.0, right=0.0)

    def _filling(self) -> tuple[float, float, float]:
        """Start and end of early filling and start of atrial filling, seconds.

        Each part has its usual length, but at fast rates a fixed share of a short diastole.
        """
        diastole = self.beat_seconds - self.systole_seconds
        early_start = self.systole_seconds + min(0.08, 0.15 * diastole)
        early_end = early_start + min(0.25, 0.5 * diastole)
        late_start = self.beat_seconds - min(0.14, 0.3 * diastole)
        return early_start, early_end, late_start


@dataclass(frozen=True)
class Phase:
    """How far the heart has moved at one instant."""

    emptying: float
    """Share of the usual stroke volume that is out of the ventricle; a strong beat exceeds 1."""
    inflow_opening: float
    """Of mitral and tricuspid valve: 0 shut, 1 wide open."""
    outflow_opening: float
    """Of the aortic valve."""
    stroke_rate: float
    """Change of `emptying` per second: positive while blood is ejected."""


@dataclass(frozen=True)
class Rhythm:
    """The beats of one clip: none is quite like the next."""

    starts: np.ndarray
    """R waves [n], seconds, ascending; one of them is 0."""
    beats: tuple[Cycle, ...]
    """One per R wave."""
    strokes: np.ndarray
    """Stroke volume of each beat [n] relative to the patient's usual one."""

    def phase(self, seconds: float) -> Phase:
        """The heart's phase at a time within the beats."""
        index = int(np.clip(np.searchsorted(self.starts, seconds, "right") - 1, 0, None))
        cycle, stroke = self.beats[index], float(self.strokes[index])
        since = seconds - float(self.starts[index])
        step = 0.005
        before, after = (float(cycle.emptying(since + shift)) for shift in (-step, step))
        inside = step < since < cycle.beat_seconds - step
        return Phase(
            emptying=stroke * float(cycle.emptying(since)),
            inflow_opening=float(cycle.inflow_opening(since)),
            outflow_opening=float(cycle.outflow_opening(since)),
            stroke_rate=stroke * (after - before) / (2.0 * step) if inside else 0.0,
        )


def draw_rhythm(
    cycle: Cycle, variability: float, seconds: tuple[float, float], rng: np.random.Generator
) -> Rhythm:
    """Draw beats around a usual one that cover a span of seconds (start, end).

    A beat's stroke volume follows the pause before it (more filling, a stronger beat), so an
    irregular rhythm ejects unevenly. `variability` is the standard deviation of the beats' lengths
    relative to their mean: about 0.03 in sinus rhythm, 0.2 in atrial fibrillation.
    """
    num_before = int(np.ceil(max(-seconds[0], 0.0) / (0.5 * cycle.beat_seconds))) + 1
    num_after = int(np.ceil(max(seconds[1], 0.0) / (0.5 * cycle.beat_seconds))) + 2
    noise = np.clip(rng.normal(0.0, variability, num_before + num_after), -0.45, 0.6)
    lengths = cycle.beat_seconds * (1.0 + noise)
    starts = np.concatenate([[0.0], np.cumsum(lengths)[:-1]])
    strokes = 1.0 + np.clip(0.6 * np.concatenate([[0.0], noise[:-1]]), -0.35, 0.12)
    beats = tuple(Cycle(60.0 / length, cycle.early_share) for length in lengths)
    return Rhythm(starts - starts[num_before], beats, strokes)
