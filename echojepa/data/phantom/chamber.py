"""The shape of one heart chamber: a truncated ellipsoid with a wall, and its plane cuts.

Heart frame, centimetres: z runs along the left ventricle's axis, 0 at its outer apex, growing
towards the atria; x points from the septum to the lateral wall; y points from the anterior to the
inferior wall. One cubic centimetre is one millilitre.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

TIP_THINNING = 0.6
"""Thickness of a chamber's wall at its tip, as a share of the wall elsewhere."""


@dataclass(frozen=True)
class Cut:
    """One chamber in an image plane: two concentric ellipses, cut off at a rim.

    The angle is 0 at the tip and grows towards +x; the wall lies between `inner` and `outer`.
    """

    center_cm: tuple[float, float]
    inner_cm: tuple[float, float]
    """Semi-axes of the cavity, across and along."""
    outer_cm: tuple[float, float]
    """Semi-axes of the outside of the wall."""
    rim_cm: float
    """From the centre to the plane of the valve, away from the tip; infinite if there is none."""
    direction: int
    """+1 if the rim lies at larger second coordinates than the tip, else -1."""

    def points(self, turn: np.ndarray, layer: np.ndarray) -> np.ndarray:
        """Points [n, 2] of the wall.

        `turn` runs from -1 (rim on the -x side) over 0 (tip) to 1, `layer` from 0 (inner) to 1.
        """
        across, along = self._semi_axes(layer)
        angle = turn * np.arccos(np.clip(-self.rim_cm / along, -1.0, 1.0))
        x = self.center_cm[0] + across * np.sin(angle)
        y = self.center_cm[1] - self.direction * along * np.cos(angle)
        return np.stack([x, y], axis=1)

    def distance_cm(self, points: np.ndarray, layer: float) -> np.ndarray:
        """About how far points [n, 2] are outside of one layer (negative: inside)."""
        across, along = self._semi_axes(layer)
        x = points[:, 0] - self.center_cm[0]
        y = self.direction * (points[:, 1] - self.center_cm[1])
        radial = (np.sqrt((x / across) ** 2 + (y / along) ** 2) - 1.0) * min(across, along)
        return np.asarray(np.maximum(radial, y - self.rim_cm))

    def _semi_axes(self, layer: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        (inner_x, inner_y), (outer_x, outer_y) = self.inner_cm, self.outer_cm
        across = np.asarray(inner_x + layer * (outer_x - inner_x))
        return across, np.asarray(inner_y + layer * (outer_y - inner_y))


@dataclass(frozen=True)
class Chamber:
    """A chamber at one instant."""

    tip_cm: float
    """z of the cavity's tip."""
    direction: int
    """+1 for a ventricle (opens towards larger z), -1 for an atrium."""
    length_cm: float
    """From the tip to the plane of the valve."""
    truncation: float
    """Height of that plane above the ellipsoid's centre, as a share of the long semi-axis."""
    radius_cm: tuple[float, float]
    """Short semi-axes of the cavity, along x and y."""
    center_cm: tuple[float, float]
    """x and y of the axis."""
    wall_cm: float

    @property
    def semi_long_cm(self) -> float:
        """Long semi-axis of the cavity."""
        return self.length_cm / (1.0 + self.truncation)

    @property
    def plane_cm(self) -> float:
        """z of the plane of the valve."""
        return self.tip_cm + self.direction * self.length_cm

    @property
    def rim_radius_cm(self) -> float:
        """Half of the width (along x) of the cavity in the plane of the valve."""
        return float(self.radius_cm[0] * np.sqrt(1.0 - self.truncation**2))

    def volume_ml(self, offset_cm: np.ndarray | float = 0.0) -> np.ndarray:
        """Volume inside the surface that lies `offset_cm` outside of the cavity's."""
        offset = np.asarray(offset_cm, dtype=np.float64)
        rim = self.truncation * self.semi_long_cm
        along = self.semi_long_cm + TIP_THINNING * offset
        height = rim - rim**3 / (3.0 * along**2) + 2.0 * along / 3.0
        return np.asarray(
            np.pi * (self.radius_cm[0] + offset) * (self.radius_cm[1] + offset) * height
        )

    def muscle_share(self, layer: np.ndarray) -> np.ndarray:
        """Share of the wall's volume that lies inside of a layer (0 inner, 1 outer)."""
        cavity, whole = self.volume_ml(0.0), self.volume_ml(self.wall_cm)
        return np.asarray((self.volume_ml(layer * self.wall_cm) - cavity) / (whole - cavity))

    def layer_of(self, muscle_share: np.ndarray) -> np.ndarray:
        """Where the muscle with a given share of wall inside of it lies now: `muscle_share`^-1."""
        layers = np.linspace(0.0, 1.0, 17)
        return np.interp(muscle_share, self.muscle_share(layers), layers)

    def long_cut(self) -> Cut:
        """The cut by the plane y = 0, in coordinates (x, z)."""
        along = self.semi_long_cm
        return Cut(
            center_cm=(self.center_cm[0], self.tip_cm + self.direction * along),
            inner_cm=(self.radius_cm[0], along),
            outer_cm=(self.radius_cm[0] + self.wall_cm, along + TIP_THINNING * self.wall_cm),
            rim_cm=self.truncation * along,
            direction=self.direction,
        )

    def short_cut(self, z_cm: float) -> Cut:
        """The cut by a plane of constant z, in coordinates (x, y): closed ellipses."""
        height = self.direction * (z_cm - self.tip_cm) - self.semi_long_cm
        inner = _half_width(height / self.semi_long_cm)
        outer = _half_width(height / (self.semi_long_cm + TIP_THINNING * self.wall_cm))
        return Cut(
            center_cm=self.center_cm,
            inner_cm=(self.radius_cm[0] * inner, self.radius_cm[1] * inner),
            outer_cm=(
                (self.radius_cm[0] + self.wall_cm) * outer,
                (self.radius_cm[1] + self.wall_cm) * outer,
            ),
            rim_cm=float("inf"),
            direction=1,
        )


def _half_width(height: float) -> float:
    """Half-width of the unit circle at a height; a sliver beyond its end, so a cut never fails."""
    return float(np.sqrt(max(1.0 - height**2, 1e-4)))


def wall_for_muscle(cavity: Chamber, muscle_ml: float) -> float:
    """The wall thickness (cm) with which a cavity is surrounded by `muscle_ml` of muscle.

    Muscle is incompressible, so a wall thickens as its cavity empties.
    """
    inside = float(cavity.volume_ml(0.0))
    return float(brentq(lambda wall: float(cavity.volume_ml(wall)) - inside - muscle_ml, 0.0, 10.0))
