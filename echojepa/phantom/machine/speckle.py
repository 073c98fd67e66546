"""Speckle: the interference of scatterers' echoes, on a grid of ranges and beam angles.

Every scatterer returns a complex amplitude turned by the two-way phase 2 k r of its range r; the
grid sums them and a separable point-spread function blurs the sum *before* the magnitude is taken.
So grain, its size and its statistics come out of the physics (Wagner, Smith, Sandrik and Lopez,
IEEE Trans. Sonics Ultrason. 30:156, 1983), and the grain moves with the tissue.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class PolarGrid:
    """Ranges and beam angles of one sector."""

    depth_cm: float
    half_angle_rad: float
    num_ranges: int
    num_beams: int
    wavelength_cm: float

    @property
    def range_step_cm(self) -> float:
        """Distance of two range samples."""
        return self.depth_cm / self.num_ranges

    @property
    def beam_step_rad(self) -> float:
        """Angle between two beams."""
        return 2.0 * self.half_angle_rad / self.num_beams

    @property
    def ranges_cm(self) -> np.ndarray:
        """Middles of the range samples [num_ranges]."""
        return (np.arange(self.num_ranges) + 0.5) * self.range_step_cm

    @property
    def angles_rad(self) -> np.ndarray:
        """Directions of the beams [num_beams]; 0 is straight down, positive is right."""
        return (np.arange(self.num_beams) + 0.5) * self.beam_step_rad - self.half_angle_rad

    def cells(self, radius_cm: np.ndarray, angle_rad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fractional row and column of ranges and angles of one shape."""
        row = radius_cm / self.range_step_cm - 0.5
        return row, (angle_rad + self.half_angle_rad) / self.beam_step_rad - 0.5

    def sum_echoes(self, points: np.ndarray, amplitudes: np.ndarray) -> np.ndarray:
        """Complex echoes of scatterers at points [n, 2], summed onto the grid.

        Returns float32 [num_ranges, num_beams, 2] (real and imaginary part). Muscle of level 1
        comes out with the same mean power everywhere: the area of a grid cell is divided out.
        """
        radius = np.sqrt(points[:, 0] ** 2 + points[:, 1] ** 2)
        row, column = self.cells(radius, np.arctan2(points[:, 0], points[:, 1]))
        # NaN (a covered scatterer) compares false and drops out here, too.
        seen = (row >= 0) & (row < self.num_ranges - 1)
        seen &= (column >= 0) & (column < self.num_beams - 1)
        radius = radius[seen]
        weight = 1.0 / np.sqrt(radius * (self.range_step_cm * self.beam_step_rad))
        phase = np.float32(4.0 * np.pi / self.wavelength_cm) * radius
        carrier = np.empty(len(radius), np.complex64)
        carrier.real, carrier.imag = weight * np.cos(phase), weight * np.sin(phase)
        return self._spread(row[seen], column[seen], amplitudes[seen] * carrier)

    def _spread(self, row: np.ndarray, column: np.ndarray, echoes: np.ndarray) -> np.ndarray:
        """Share each echo among its four neighbours on the grid, so that motion is smooth."""
        top, left = row.astype(np.intp), column.astype(np.intp)
        down, right = row - top, column - left
        lower = down * echoes
        rows = (echoes - lower, lower)
        cell = top * self.num_beams + left
        cells = np.concatenate([cell, cell + 1, cell + self.num_beams, cell + self.num_beams + 1])
        shares = np.concatenate([part for r in rows for part in (r - right * r, right * r)])
        total = self.num_ranges * self.num_beams
        sums = np.empty((total, 2), np.float32)
        sums[:, 0] = np.bincount(cells, shares.real, total)
        sums[:, 1] = np.bincount(cells, shares.imag, total)
        return sums.reshape(self.num_ranges, self.num_beams, 2)


class PointSpread:
    """A separable blur whose lateral width changes with depth.

    A beam of constant angle widens with depth; besides, it is wider (in angle) beyond its focus,
    and far wider close to the probe, where it is as broad as the aperture. The blurs of four
    depths are mixed in between.
    """

    def __init__(
        self, grid: PolarGrid, axial_cm: float, lateral_rad: float, focus: float, side_lobe: float
    ) -> None:
        """Make the kernels.

        Args:
            axial_cm: standard deviation of the pulse.
            lateral_rad: standard deviation of the beam at its focus.
            focus: depth of the focus as a share of the whole.
            side_lobe: height of the side lobes' floor relative to the main lobe.
        """
        self._axial = _gaussian(axial_cm / grid.range_step_cm)
        depths_cm = (
            0.06 * grid.depth_cm,
            0.2 * grid.depth_cm,
            focus * grid.depth_cm,
            grid.depth_cm,
        )
        shares = [np.interp(grid.ranges_cm, depths_cm, row) for row in np.eye(len(depths_cm))]
        self._zones: list[tuple[slice, np.ndarray, np.ndarray]] = []
        for share, widening in zip(shares, (5.0, 1.5, 1.0, 1.3), strict=True):
            used = np.flatnonzero(share)
            rows = slice(int(used[0]), int(used[-1]) + 1)
            main_lobe = _gaussian(widening * lateral_rad / grid.beam_step_rad)
            lateral = _with_side_lobes(main_lobe, side_lobe)
            self._zones.append((rows, share[rows].astype(np.float32)[:, None, None], lateral))

    def blur(self, echoes: np.ndarray) -> np.ndarray:
        """Blur complex echoes float32 [num_ranges, num_beams, 2]."""
        pulses = _filter(echoes, np.ones(1, np.float32), self._axial)
        mixed = np.zeros_like(echoes)
        for rows, share, lateral in self._zones:
            mixed[rows] += share * _filter(pulses[rows], lateral, np.ones(1, np.float32))
        return mixed


class Amplitudes:
    """Complex amplitudes of scatterers that forget themselves over time (first-order Gauss-Markov).

    What forgets is the tissue's fine structure: by what the geometry doesn't move, as the slow
    drift of a hand-held probe. Motion through the image plane is in the geometry and comes on top.
    """

    def __init__(
        self,
        level: np.ndarray,
        pace: np.ndarray,
        decorrelation_seconds: float,
        rng: np.random.Generator,
    ) -> None:
        """`level` and `pace` (relative to muscle) are [n].

        `decorrelation_seconds` is the time in which the correlation of muscle's echo intensity
        falls to 1/e. Intensities of Gaussian echoes correlate by the square of their amplitudes'
        correlation (Reed, IRE Trans. Inf. Theory 8:194, 1962), hence the half.
        """
        self._rate = (0.5 * pace / decorrelation_seconds).astype(np.float32)
        self._level = level.astype(np.float32)
        self._rng = rng
        self._state = self._fresh()

    @property
    def values(self) -> np.ndarray:
        """Complex amplitudes [n] now."""
        return np.asarray(self._level * self._state)

    def step(self, seconds: float) -> None:
        """Let time pass."""
        kept = np.exp(-self._rate * np.float32(seconds))
        self._state = kept * self._state + np.sqrt(1.0 - kept**2) * self._fresh()

    def _fresh(self) -> np.ndarray:
        """Circular complex Gaussian values complex64 [n] of unit power."""
        pairs = self._rng.standard_normal((len(self._level), 2), dtype=np.float32)
        return np.asarray((pairs * np.float32(np.sqrt(0.5))).view(np.complex64)[:, 0])


def _filter(echoes: np.ndarray, lateral: np.ndarray, axial: np.ndarray) -> np.ndarray:
    """Correlate echoes [rows, beams, 2] with a kernel along each axis; nothing lies outside."""
    return np.asarray(
        cv2.sepFilter2D(echoes, cv2.CV_32F, lateral, axial, borderType=cv2.BORDER_CONSTANT)
    )


def _gaussian(sigma: float) -> np.ndarray:
    """A Gaussian of unit energy: white speckle keeps its power."""
    reach = max(int(np.ceil(3.5 * sigma)), 1)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.asarray((kernel / np.linalg.norm(kernel)).astype(np.float32))


def _with_side_lobes(main_lobe: np.ndarray, height: float) -> np.ndarray:
    """Add a low, three times wider floor: the smear beside bright reflectors."""
    reach = 3 * (len(main_lobe) // 2)
    floor = np.hanning(2 * reach + 3)[1:-1].astype(np.float32) * main_lobe.max() * height
    floor[reach - len(main_lobe) // 2 : reach + len(main_lobe) // 2 + 1] += main_lobe
    return np.asarray(floor)
