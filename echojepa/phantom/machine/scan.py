"""The scanner: from complex echoes to grey frames of a fan-shaped sector.

Attenuation and its compensation, shadows, reverberation, electronic noise, log compression,
persistence, scan conversion.
"""

from __future__ import annotations

import cv2
import numpy as np

from echojepa.phantom.machine.speckle import PointSpread, PolarGrid
from echojepa.phantom.machine.vendors import Knobs

_CEILING_DB = 21.0
"""What is white, relative to muscle of level 1."""
_RANGE_SAMPLES = 256
_SHOWN_WIDTH = 0.9
"""Share of the fan's full width that fits into the image."""
_OVERSAMPLING = 2
"""Scan conversion runs finer than the image and is then averaged down, as on a real machine."""
_REVERBERATION_CM = 1.1
"""From the probe to the layer that throws echoes back once more."""


class Scanner:
    """One machine making square frames of `size` pixels."""

    def __init__(
        self, knobs: Knobs, size: int, electronic_noise: float, speckle_contrast: float
    ) -> None:
        """`electronic_noise` is relative to muscle, at the far end of the sector."""
        self.knobs = knobs
        self._contrast = speckle_contrast
        self.grid = PolarGrid(
            knobs.depth_cm,
            knobs.half_angle_rad,
            _RANGE_SAMPLES,
            knobs.vendor.num_beams,
            knobs.wavelength_cm,
        )
        self._spread = PointSpread(
            self.grid,
            knobs.axial_cm,
            knobs.lateral_rad,
            knobs.vendor.focus,
            knobs.vendor.side_lobe,
        )
        self._gain = _signal_gain(self.grid, knobs)
        # Time-gain compensation restores attenuated muscle to its level and lifts the receiver's
        # noise with it, so the noise grows with depth.
        to_far_end_cm = knobs.depth_cm - self.grid.ranges_cm
        noise = electronic_noise * 10.0 ** (-knobs.attenuation_db_per_cm * to_far_end_cm / 20.0)
        self._noise = noise.astype(np.float32)[:, None, None] * np.float32(np.sqrt(0.5))
        # The bottom of the fan fits; its far corners, which show little, may be cut off.
        above, below, _ = knobs.vendor.margin
        width = 2.0 * np.sin(knobs.half_angle_rad)
        self.pixel_cm = knobs.depth_cm * max(1.0 / (1.0 - above - below), _SHOWN_WIDTH * width)
        self.pixel_cm /= size
        self._size = size
        self._maps, self._outside = self._scan_conversion()
        self._shown: np.ndarray | None = None

    def envelope(self, points: np.ndarray, amplitudes: np.ndarray) -> np.ndarray:
        """Magnitude of the received echoes [num_ranges, num_beams] before gain and noise."""
        blurred = self._spread.blur(self.grid.sum_echoes(points, amplitudes))
        return np.asarray(cv2.magnitude(blurred[..., 0], blurred[..., 1]))

    def frame(
        self, points: np.ndarray, amplitudes: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """The next grey frame uint8 [size, size], of scatterers at points [n, 2]."""
        received = self._spread.blur(self.grid.sum_echoes(points, amplitudes))
        self._reverberate(received)
        received *= self._gain
        received += self._noise * rng.standard_normal(received.shape, dtype=np.float32)
        envelope = cv2.magnitude(received[..., 0], received[..., 1])
        grey = self._compress(envelope)
        if self._shown is not None:
            stay = np.float32(self.knobs.persistence)
            grey = stay * self._shown + (np.float32(1.0) - stay) * grey
        self._shown = grey
        return self._show(grey)

    def pixel_points(self) -> np.ndarray:
        """Image coordinates [size * size, 2] (lateral, depth in cm) of the pixels' centres."""
        return np.stack(self._plane(self._size), axis=-1).reshape(-1, 2)

    def sector(self) -> np.ndarray:
        """bool [size, size]: the pixels whose centre lies in the fan."""
        lateral, depth = self._plane(self._size)
        return ~self._is_outside(lateral, depth)

    def _reverberate(self, received: np.ndarray) -> None:
        """Add the echoes that went twice between the chest wall and the probe."""
        lag = round(_REVERBERATION_CM / self.grid.range_step_cm)
        received[lag:] += np.float32(self.knobs.reverberation) * received[:-lag].copy()

    def _compress(self, envelope: np.ndarray) -> np.ndarray:
        """Log compression and grey map: amplitudes to grey levels float32 from 0 to 255."""
        knobs = self.knobs
        level_db = 20.0 * np.log10(envelope + np.float32(1e-6)) + np.float32(knobs.gain_db)
        if self._contrast < 1.0:
            mean_db = cv2.GaussianBlur(level_db, (21, 25), sigmaX=4.0, sigmaY=4.5)
            level_db = mean_db + np.float32(self._contrast) * (level_db - mean_db)
        share = 1.0 + (level_db - np.float32(_CEILING_DB)) / np.float32(knobs.dynamic_range_db)
        grey = np.clip(share, 0.0, 1.0) ** np.float32(knobs.gamma)
        knee = np.float32(knobs.vendor.knee)
        return np.asarray(np.float32(255.0) * (grey + knee * grey * (1 - grey) * (2 * grey - 1)))

    def _show(self, polar: np.ndarray) -> np.ndarray:
        """Scan conversion of grey levels [num_ranges, num_beams]."""
        reach = self.knobs.smoothing_cm / self.grid.range_step_cm
        smooth = cv2.GaussianBlur(polar, (5, 7), sigmaX=0.8, sigmaY=reach)
        fine = cv2.remap(smooth, *self._maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        fine[self._outside] = 0.0
        coarse = cv2.resize(fine, (self._size, self._size), interpolation=cv2.INTER_AREA)
        return np.asarray(np.rint(coarse).astype(np.uint8))

    def _plane(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Lateral position and depth [size, size] of the centres of `size` x `size` pixels."""
        above, below, shift = self.knobs.vendor.margin
        side = self._size * self.pixel_cm
        steps = (np.arange(size) + 0.5) / size * side
        # What the margins leave free beyond the depth is shared evenly.
        spare = 0.5 * (side * (1.0 - above - below) - self.grid.depth_cm)
        lateral, depth = np.meshgrid(steps - (0.5 + shift) * side, steps - above * side - spare)
        return lateral, depth

    def _is_outside(self, lateral: np.ndarray, depth: np.ndarray) -> np.ndarray:
        radius, angle = np.hypot(lateral, depth), np.arctan2(lateral, depth)
        outside = (radius > self.grid.depth_cm) | (np.abs(angle) > self.grid.half_angle_rad)
        return np.asarray(outside)

    def _scan_conversion(self) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
        """Where every fine pixel looks in the polar grid, and which lie outside of the fan."""
        lateral, depth = self._plane(self._size * _OVERSAMPLING)
        row, column = self.grid.cells(np.hypot(lateral, depth), np.arctan2(lateral, depth))
        maps = (column.astype(np.float32), row.astype(np.float32))
        return maps, self._is_outside(lateral, depth)


def _signal_gain(grid: PolarGrid, knobs: Knobs) -> np.ndarray:
    """Amplitude gain [num_ranges, num_beams, 1]: wrong compensation, poor contact, shadows."""
    share = grid.angles_rad / knobs.half_angle_rad
    left, right = (
        1.0 / (1.0 + np.exp((side - edge) / 0.08))
        for side, edge in zip((-share, share), knobs.window, strict=True)
    )
    direction, darkness = knobs.rib
    rib = 1.0 - darkness * np.exp(-(((share - direction) / 0.1) ** 2))
    axial = 10.0 ** (knobs.tilt_db_per_cm * (grid.ranges_cm - 0.5 * grid.depth_cm) / 20.0)
    gain = np.outer(axial, (0.12 + 0.88 * left * right) * rib)
    edge, start = knobs.lung
    deep = 1.0 / (1.0 + np.exp((start - grid.ranges_cm / grid.depth_cm) / 0.03))
    gain *= 1.0 - 0.92 * np.outer(deep, 1.0 / (1.0 + np.exp((edge - share) / 0.05)))
    return gain.astype(np.float32)[..., None]
