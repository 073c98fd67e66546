"""The scanner: from complex echoes to grey frames of a fan-shaped sector.

Attenuation and its compensation, shadows, electronic noise, log compression, scan conversion.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from echojepa.data.phantom.speckle import PointSpread, PolarGrid

_ATTENUATION_DB_PER_CM = 1.3
"""Round trip at 2 MHz, muscle and blood mixed."""
_CEILING_DB = 21.0
"""What is white, relative to muscle of level 1."""
_RANGE_STEP_CM = 0.06
_NUM_BEAMS = 96
_SHOWN_WIDTH = 0.9
"""Share of the fan's full width that fits into the image."""
_OVERSAMPLING = 2
"""Scan conversion runs finer than the image and is then averaged down, as on a real machine."""


@dataclass(frozen=True)
class Knobs:
    """The settings of a machine and the acoustic window of a patient, for one clip."""

    half_angle_rad: float
    axial_cm: float
    """Standard deviation of the pulse."""
    lateral_rad: float
    """Standard deviation of the beam at its focus."""
    dynamic_range_db: float
    gain_db: float
    smoothing_cm: float
    """Speckle reduction after compression, as machines have it: standard deviation in range."""
    gamma: float
    """Of the grey map: above 1 darkens the middle."""
    tilt_db_per_cm: float
    """What the time-gain compensation is off by."""
    window: tuple[float, float]
    """Where the left and right edge fade, as shares of the half-angle."""
    shadow: tuple[float, float]
    """A rib's shadow: its direction as a share of the half-angle, and its depth from 0 to 1."""


def draw_knobs(rng: np.random.Generator) -> Knobs:
    """Draw a machine and a window."""
    has_shadow = rng.random() < 0.3
    return Knobs(
        half_angle_rad=np.deg2rad(rng.uniform(37.5, 45.0)),
        axial_cm=rng.uniform(0.055, 0.08),
        lateral_rad=rng.uniform(0.016, 0.026),
        dynamic_range_db=rng.uniform(46.0, 56.0),
        gain_db=rng.uniform(-3.0, 3.0),
        smoothing_cm=rng.uniform(0.05, 0.11),
        gamma=rng.uniform(1.1, 1.5),
        tilt_db_per_cm=rng.uniform(-0.35, 0.35),
        window=(rng.uniform(0.6, 1.1), rng.uniform(0.6, 1.1)),
        shadow=(rng.uniform(-1.0, 1.0), rng.uniform(0.3, 0.7) if has_shadow else 0.0),
    )


class Scanner:
    """One machine looking at one depth, making square frames of `size` pixels."""

    def __init__(self, knobs: Knobs, depth_cm: float, size: int, electronic_noise: float) -> None:
        """`electronic_noise` is relative to muscle, at the far end of the sector."""
        self._knobs = knobs
        num_ranges = int(np.ceil(depth_cm / _RANGE_STEP_CM))
        self.grid = PolarGrid(depth_cm, knobs.half_angle_rad, num_ranges, _NUM_BEAMS)
        self._spread = PointSpread(self.grid, knobs.axial_cm, knobs.lateral_rad)
        self._gain = _signal_gain(self.grid, knobs)
        # Time-gain compensation restores attenuated muscle to its level and lifts the receiver's
        # noise with it, so the noise grows with depth.
        to_far_end_cm = depth_cm - self.grid.ranges_cm
        noise = electronic_noise * 10.0 ** (-_ATTENUATION_DB_PER_CM * to_far_end_cm / 20.0)
        self._noise = noise.astype(np.float32)[:, None, None] * np.float32(np.sqrt(0.5))
        # The bottom of the fan fits; its far corners, which show little, may be cut off.
        width = 2.0 * np.sin(knobs.half_angle_rad)
        self.pixel_cm = depth_cm * max(1.02, _SHOWN_WIDTH * width) / size
        self._size = size
        self._maps, self._outside = self._scan_conversion()

    def envelope(self, points: np.ndarray, amplitudes: np.ndarray) -> np.ndarray:
        """Magnitude of the received echoes [num_ranges, num_beams] before gain and noise."""
        blurred = self._spread.blur(self.grid.sum_echoes(points, amplitudes))
        return np.asarray(cv2.magnitude(blurred[..., 0], blurred[..., 1]))

    def frame(
        self, points: np.ndarray, amplitudes: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """A grey frame uint8 [size, size] of scatterers at points [n, 2]."""
        received = self._spread.blur(self.grid.sum_echoes(points, amplitudes)) * self._gain
        received += self._noise * rng.standard_normal(received.shape, dtype=np.float32)
        envelope = cv2.magnitude(received[..., 0], received[..., 1])
        return self._show(self._compress(envelope))

    def pixel_points(self) -> np.ndarray:
        """Image coordinates [size * size, 2] (lateral, depth in cm) of the pixels' centres."""
        return np.stack(self._plane(self._size), axis=-1).reshape(-1, 2)

    def _compress(self, envelope: np.ndarray) -> np.ndarray:
        """Log compression: amplitudes to grey levels float32 from 0 to 255."""
        knobs = self._knobs
        level_db = 20.0 * np.log10(envelope + np.float32(1e-6)) + np.float32(knobs.gain_db)
        share = 1.0 + (level_db - np.float32(_CEILING_DB)) / np.float32(knobs.dynamic_range_db)
        return np.asarray(np.float32(255.0) * np.clip(share, 0.0, 1.0) ** np.float32(knobs.gamma))

    def _show(self, polar: np.ndarray) -> np.ndarray:
        """Scan conversion of grey levels [num_ranges, num_beams]."""
        reach = self._knobs.smoothing_cm / self.grid.range_step_cm
        smooth = cv2.GaussianBlur(polar, (5, 7), sigmaX=0.8, sigmaY=reach)
        fine = cv2.remap(smooth, *self._maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        fine[self._outside] = 0.0
        coarse = cv2.resize(fine, (self._size, self._size), interpolation=cv2.INTER_AREA)
        return np.asarray(np.rint(coarse).astype(np.uint8))

    def _plane(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Lateral position and depth [size, size] of the centres of `size` x `size` pixels."""
        steps = (np.arange(size) + 0.5) / size * self._size * self.pixel_cm
        side = self._size * self.pixel_cm
        top = 0.5 * (side - self.grid.depth_cm)
        lateral, depth = np.meshgrid(steps - 0.5 * side, steps - top)
        return lateral, depth

    def _scan_conversion(self) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
        """Where every fine pixel looks in the polar grid, and which lie outside of the fan."""
        lateral, depth = self._plane(self._size * _OVERSAMPLING)
        radius, angle = np.hypot(lateral, depth), np.arctan2(lateral, depth)
        row = radius / self.grid.range_step_cm - 0.5
        column = (angle + self.grid.half_angle_rad) / self.grid.beam_step_rad - 0.5
        outside = (radius > self.grid.depth_cm) | (np.abs(angle) > self.grid.half_angle_rad)
        return (column.astype(np.float32), row.astype(np.float32)), outside


def _signal_gain(grid: PolarGrid, knobs: Knobs) -> np.ndarray:
    """Amplitude gain [num_ranges, num_beams, 1]: wrong compensation, poor contact, a shadow."""
    share = grid.angles_rad / knobs.half_angle_rad
    left, right = (
        1.0 / (1.0 + np.exp((side - edge) / 0.08))
        for side, edge in zip((-share, share), knobs.window, strict=True)
    )
    direction, darkness = knobs.shadow
    shadow = 1.0 - darkness * np.exp(-(((share - direction) / 0.1) ** 2))
    lateral = (0.12 + 0.88 * left * right) * shadow
    axial = 10.0 ** (knobs.tilt_db_per_cm * (grid.ranges_cm - 0.5 * grid.depth_cm) / 20.0)
    return np.outer(axial, lateral).astype(np.float32)[..., None]
