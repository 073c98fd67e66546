"""A heart chamber as a solid: a cavity and its wall, star-shaped about an axis of its own.

Local coordinates, centimetres: z runs along the axis from the closed tip (0) to the open end, an
angle turns about it. A piece of wall keeps three material coordinates forever: its angle, its
height on the axis at rest, and its *share*, the share of the muscle between it and the cavity. How
the cavity is strained at one instant then says where the piece is. Muscle is incompressible: what a
slice of wall loses in length or circumference it gains in thickness, so walls thicken by geometry.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

_QUADRATURE = (48, 64)
"""Angles and heights of the grid on which volumes are integrated."""


@dataclass(frozen=True)
class WallMotion:
    """A patch of wall that moves less (or outwards): a regional wall-motion abnormality."""

    angle_rad: float
    """Direction of its centre."""
    height: float
    """Height of its centre as a share of the chamber's."""
    severity: float
    """0 is normal, 1 akinetic, above 1 dyskinetic."""

    def mobility(self, angle: np.ndarray, height: np.ndarray) -> np.ndarray:
        """Share of normal motion at angles and heights (shares), both [n]."""
        turn = np.cos(angle - self.angle_rad) - 1.0
        return 1.0 - self.severity * np.exp(turn / 0.35 - ((height - self.height) / 0.35) ** 2)


@dataclass(frozen=True)
class Shape:
    """A chamber at rest (end-diastole). Constant for a patient."""

    origin_cm: tuple[float, float, float]
    """Of local coordinates in the heart's."""
    axis: tuple[float, float, float]
    """Unit vector from tip to open end in heart coordinates."""
    heights_cm: np.ndarray
    """Heights [n] of the profile, from 0 to the open end."""
    inner_cm: np.ndarray
    """Radius [n] of the cavity at those heights; 0 within the tip's wall."""
    outer_cm: np.ndarray
    """Radius [n] of the outside of the wall."""
    aspect: float = 1.0
    """Radius along local y over radius along local x."""
    twist_rad: tuple[float, float] = (0.0, 0.0)
    """Turn of tip and open end at full contraction."""
    flat_angle_rad: float | None = None
    """Where the wall flattens (the septum) under pressure from the other side, if anywhere."""
    motion: WallMotion | None = None

    @property
    def height_cm(self) -> float:
        """From the outer tip to the open end."""
        return float(self.heights_cm[-1])

    @cached_property
    def frame(self) -> np.ndarray:
        """Rotation [3, 3]: rows are the local axes in heart coordinates."""
        axis = np.asarray(self.axis)
        x = np.array([1.0, 0.0, 0.0]) - axis[0] * axis
        x = x / np.linalg.norm(x)
        return np.stack([x, np.cross(axis, x), axis])

    @cached_property
    def quadrature(self) -> tuple[Rest, np.ndarray]:
        """Points [n] over the cavity and their weights [n]: volume is their sum over radius^2."""
        num_angles, num_heights = _QUADRATURE
        angle = (np.arange(num_angles) + 0.5) * 2.0 * np.pi / num_angles
        nodes, weights = np.polynomial.legendre.leggauss(num_heights)
        tip = self.heights_cm[max(int(np.flatnonzero(self.inner_cm > 0.0)[0]) - 1, 0)]
        half = 0.5 * (self.height_cm - tip)
        heights, angles = np.meshgrid(tip + half * (nodes + 1.0), angle, indexing="ij")
        rest = self.at(angles.ravel(), heights.ravel())
        return rest, np.repeat(weights * half * np.pi / num_angles, num_angles)

    def at(self, angle: np.ndarray, height_cm: np.ndarray) -> Rest:
        """What is constant at material angles and heights, both [n]."""
        inner = np.interp(height_cm, self.heights_cm, self.inner_cm)
        outer = np.interp(height_cm, self.heights_cm, self.outer_cm)
        if self.aspect != 1.0:
            rim = 1.0 / np.sqrt(np.cos(angle) ** 2 + (np.sin(angle) / self.aspect) ** 2)
            inner, outer = rim * inner, rim * outer
        flat: np.ndarray | float = 0.0
        if self.flat_angle_rad is not None:
            flat = np.exp((np.cos(angle - self.flat_angle_rad) - 1.0) / 0.25)
        mobility: np.ndarray | float = 1.0
        if self.motion is not None:
            mobility = self.motion.mobility(angle, height_cm / self.height_cm)
        return Rest(inner, outer**2 - inner**2, flat, mobility)

    def turn(self, height_cm: np.ndarray) -> np.ndarray:
        """Twist [n] at full contraction, radians."""
        tip, end = self.twist_rad
        return np.asarray(tip + (end - tip) * height_cm / self.height_cm)


@dataclass(frozen=True)
class Rest:
    """Constants of pieces of wall, each [n] or the same for all."""

    inner_cm: np.ndarray
    """Radius of the cavity beside them."""
    muscle_cm2: np.ndarray
    """Twice the area of muscle per radian and unit of height, at rest."""
    flat: np.ndarray | float
    """How much the wall's flattening moves them."""
    mobility: np.ndarray | float
    """How much the cavity's squeeze moves them."""


@dataclass(frozen=True)
class Pieces:
    """Pieces of wall by their material coordinates, each [n]."""

    angle: np.ndarray
    height_cm: np.ndarray
    share: np.ndarray
    """0 at the cavity, 1 outside."""
    rest: Rest
    turn: np.ndarray


@dataclass(frozen=True)
class Chamber:
    """A chamber at one instant."""

    shape: Shape
    stretch: float = 1.0
    """Length now over length at rest."""
    squeeze: float = 0.0
    """Share of its radius that a normal piece of cavity has lost."""
    flattening: float = 0.0
    """Share of the radius by which the flat side is pushed in."""
    contraction: float = 0.0
    """Scale of the twist."""
    shift_cm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Displacement of the origin since rest."""
    _origin: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        origin = np.asarray(self.shape.origin_cm) + np.asarray(self.shift_cm)
        object.__setattr__(self, "_origin", origin)

    def pieces(self, angle: np.ndarray, height_cm: np.ndarray, share: np.ndarray) -> Pieces:
        """Pieces of wall at material coordinates [n]; they hold for every instant."""
        rest = self.shape.at(angle, height_cm)
        return Pieces(angle, height_cm, share, rest, self.shape.turn(height_cm))

    def positions(self, pieces: Pieces) -> np.ndarray:
        """Where the pieces are now: heart coordinates [n, 3], cm."""
        # Muscle keeps its volume: per radian and unit of height at rest, the ring from the cavity's
        # radius r to a piece at R holds (R^2 - r^2) / 2 x stretch, always the same. So
        # R^2 = r^2 + share (R^2 - r^2 at rest) / stretch, and a squeezed wall thickens by itself.
        inner = self._inner(pieces.rest)
        radius = np.sqrt(inner**2 + pieces.share * pieces.rest.muscle_cm2 / self.stretch)
        angle = pieces.angle + self.contraction * pieces.turn
        height = self.stretch * pieces.height_cm
        local = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)
        return np.asarray(local @ self.shape.frame + self._origin)

    def thickness_cm(self, angle_rad: float, height: float) -> float:
        """Of the wall at a material angle and height (as a share of the chamber's)."""
        height_cm = np.full(2, height * self.shape.height_cm)
        rest = self.shape.at(np.full(2, angle_rad), height_cm)
        layers = np.array([0.0, 1.0]) * rest.muscle_cm2 / self.stretch
        radius = np.sqrt(self._inner(rest) ** 2 + layers)
        return float(radius[1] - radius[0])

    def distance_cm(self, points: np.ndarray, share: float) -> np.ndarray:
        """About how far points [n, 3] are outside of a layer (0 cavity, 1 outside of the wall).

        Negative inside. The open end counts as a border.
        """
        local = (points - self._origin) @ self.shape.frame.T
        radius = np.hypot(local[:, 0], local[:, 1])
        height = local[:, 2] / self.stretch
        angle = np.arctan2(local[:, 1], local[:, 0])
        rest = self.shape.at(angle - self.contraction * self.shape.turn(height), height)
        border = np.sqrt(self._inner(rest) ** 2 + share * rest.muscle_cm2 / self.stretch)
        beyond = np.maximum(-local[:, 2], local[:, 2] - self.stretch * self.shape.height_cm)
        return np.asarray(np.maximum(radius - border, beyond))

    def volume_ml(self) -> float:
        """Volume of the cavity."""
        constant, linear, square = self._moments()
        return self.stretch * float(
            constant - 2.0 * self.squeeze * linear + self.squeeze**2 * square
        )

    def squeeze_for(self, volume_ml: float) -> float:
        """The squeeze that leaves the cavity a volume, with everything else as it is now.

        Raises:
            ValueError: no squeeze of this chamber's mobile wall does.
        """
        # V / stretch = constant - 2 linear s + square s^2 (see `_moments`); the smaller root is the
        # squeeze that is reached first.
        constant, linear, square = self._moments()
        rest = linear**2 - square * (constant - volume_ml / self.stretch)
        if rest < 0.0:
            raise ValueError(f"no contraction of this wall leaves {volume_ml:.1f} ml")
        return float((linear - np.sqrt(rest)) / square)

    def _inner(self, rest: Rest) -> np.ndarray:
        moved = (1.0 - self.flattening * rest.flat) * (1.0 - self.squeeze * rest.mobility)
        return np.asarray(rest.inner_cm * moved)

    def _moments(self) -> tuple[float, float, float]:
        """Coefficients of the cavity's volume as a quadratic in the squeeze, per unit stretch."""
        # The cavity's radius is r (1 - s m) with the squeeze s and each piece's mobility m, so its
        # volume, the integral of the squared radius, is a quadratic in s:
        # sum w r^2 - 2 s sum w r^2 m + s^2 sum w r^2 m^2.
        rest, weight = self.shape.quadrature
        area = weight * (rest.inner_cm * (1.0 - self.flattening * rest.flat)) ** 2
        moved = area * rest.mobility
        return float(area.sum()), float(moved.sum()), float((moved * rest.mobility).sum())


def ventricle_profile(
    length_cm: float,
    radius_cm: float,
    wall_cm: float,
    truncation: float,
    tip_share: float,
    taper: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Heights, inner and outer radii of a truncated ellipsoid within a truncated ellipsoid.

    Args:
        length_cm: of the cavity, from its tip to the open end.
        truncation: height of the open end above the ellipsoid's middle, as a share of the long
            semi-axis.
        tip_share: thickness of the wall at the tip, as a share of the wall elsewhere.
        taper: by what share the wall is thicker at the open end and thinner at the tip.
    """
    cap = tip_share * wall_cm
    semi = length_cm / (1.0 + truncation)
    # Denser towards the tips, where radii grow like square roots.
    grow = np.linspace(0.0, 1.0, 65) ** 2
    heights = np.unique(np.concatenate([cap * grow, cap + length_cm * grow]))
    middle = cap + semi
    inner = radius_cm * np.sqrt(np.clip(1.0 - ((heights - middle) / semi) ** 2, 0.0, None))
    inner[heights <= cap] = 0.0
    outside = (heights - middle) / (semi + cap)
    wall = wall_cm * (1.0 + taper * (2.0 * heights / heights[-1] - 1.0))
    outer = (radius_cm + wall) * np.sqrt(np.clip(1.0 - outside**2, 0.0, None))
    return heights, inner, outer


def tube_profile(
    length_cm: float, radius_cm: float, wall_cm: float, bulge: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Heights, inner and outer radii of a tube; `bulge` is a share of its radius, near its root."""
    heights = np.linspace(0.0, length_cm, 33)
    inner = radius_cm * (1.0 + bulge * np.exp(-(((heights - 0.8 * radius_cm) / radius_cm) ** 2)))
    return heights, inner, inner + wall_cm
