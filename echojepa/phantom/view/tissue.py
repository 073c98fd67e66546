"""Clouds of scatterers and how each kind of tissue carries them.

A scatterer has material coordinates, drawn once at end-diastole; `positions` says where the
tissue has carried it: (lateral, depth, elevation) in centimetres with the probe at the origin, NaN
where another structure covers it. Levels are amplitudes relative to muscle, times the square root
of the volume (or area) one scatterer stands for, so that a cloud's density doesn't show.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from scipy.stats import qmc

from echojepa.phantom.anatomy.chamber import Chamber, Pieces
from echojepa.phantom.anatomy.cycle import Phase
from echojepa.phantom.anatomy.heart import Anatomy, Heart
from echojepa.phantom.view.plane import Plane

ELEVATION_CM = 0.18
"""Standard deviation of the beam's thickness across the image plane (of amplitudes)."""
REACH_CM = 2.2 * ELEVATION_CM
"""Scatterers farther from the image plane are not seen."""

_SCATTERERS_PER_ML = 280.0
"""Above ten per resolution cell from 3 cm on: the limit in which speckle is fully developed."""
_LEVEL = 1.0 / np.sqrt(_SCATTERERS_PER_ML * np.sqrt(np.pi) * ELEVATION_CM)
"""Of one scatterer of a volume: summed over the beam's thickness they have the power 1 per cm2."""
_BETWEEN_STATIONS_CM = 0.3
"""More than borders stray from where they are at the nearest station."""
STATIONS = tuple(Phase(out, 0.0, 0.0, 0.0) for out in (0.0, 0.35, 0.7, 1.0, 1.12))
"""Phases that between them show whatever comes near the image plane in a beat."""

MUSCLE_PACE = 1.0
BLOOD_PACE = 15.0
"""How much faster than muscle blood decorrelates."""
STILL_PACE = 0.0
"""Tissue that doesn't move with the heart keeps its speckle."""


@dataclass(frozen=True)
class Moment:
    """The heart at one instant, seen from the probe."""

    anatomy: Anatomy
    plane: Plane
    seconds: float

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """Heart coordinates [n, 3] to image points with elevation [n, 3]."""
        return self.plane.to_image(points, self.seconds)

    def to_heart(self, points: np.ndarray) -> np.ndarray:
        """Image points [n, 2] to heart coordinates [n, 3]."""
        return self.plane.to_heart(points, self.seconds)


class Tissue(ABC):
    """One cloud of scatterers."""

    level: np.ndarray
    """Amplitudes [n]."""
    pace: float
    """Rate of decorrelation relative to muscle."""

    @abstractmethod
    def positions(self, moment: Moment) -> np.ndarray:
        """Image points with elevation [n, 3] at one instant."""


class Cover:
    """Hides what lies inside of chambers; asks only about scatterers that come and go."""

    def __init__(
        self, layers: dict[str, float], heart: Heart, stations: list[np.ndarray], margin_cm: float
    ) -> None:
        """Settle what is hidden always and what never.

        Args:
            layers: the covering chambers, and up to which of their layers they cover.
            stations: where the scatterers are at `STATIONS`, heart coordinates [n, 3] each.
            margin_cm: how much nearer or farther a border may come in between.
        """
        self._layers = layers
        self.bare = np.ones(len(stations[0]), bool)
        """Scatterers [n] that are seen at some time; the others are never moved."""
        # A border passes a scatterer only if it comes nearer than the margin at some station. So a
        # scatterer that is deeper than the margin at all of them is hidden for the whole beat, and
        # one that is farther out at all of them is never asked about again.
        anatomies, near = [heart.at(phase) for phase in STATIONS], {}
        for name, layer in layers.items():
            gaps = np.stack(
                [
                    anatomy.chambers[name].distance_cm(points, layer)
                    for anatomy, points in zip(anatomies, stations, strict=True)
                ]
            )
            self.bare &= gaps.max(axis=0) > -margin_cm
            near[name] = gaps.min(axis=0) < margin_cm
        self._near = {name: np.flatnonzero(of[self.bare]) for name, of in near.items()}

    def hide(self, points: np.ndarray, anatomy: Anatomy) -> None:
        """Set covered ones of the bare points, heart coordinates [num_bare, 3], to NaN."""
        for name, layer in self._layers.items():
            near = self._near[name]
            inside = anatomy.chambers[name].distance_cm(points[near], layer) < 0.0
            points[near[inside]] = np.nan


@dataclass(frozen=True)
class WallLook:
    """How bright a chamber's wall is, and which chambers lie over it."""

    chamber: str
    level: float
    endocardium: float
    """Extra level of the inner border where it faces the beam."""
    pericardium: float
    """Extra level of the outer border where it faces the beam and no other chamber adjoins."""
    covered_by: dict[str, float]
    """Chambers that cut this wall away, and up to which of their layers."""


WALLS = (
    WallLook("lv", 1.0, 1.3, 3.2, {}),
    WallLook("aorta", 0.9, 1.6, 0.8, {"lv": 0.0}),
    WallLook("la", 0.8, 1.0, 2.6, {"lv": 1.0, "aorta": 1.0}),
    WallLook("rv", 0.8, 1.0, 1.8, {"lv": 1.0, "aorta": 1.0, "rvot": 0.0}),
    WallLook("rvot", 0.8, 1.0, 1.5, {"lv": 1.0, "aorta": 1.0, "rv": 0.0}),
    WallLook("ra", 0.8, 1.0, 2.3, {"lv": 1.0, "la": 1.0, "aorta": 1.0, "rv": 0.0}),
)


class Wall(Tissue):
    """A chamber's wall, as far as it ever comes near the image plane."""

    pace = MUSCLE_PACE

    def __init__(
        self, look: WallLook, heart: Heart, plane: Plane, rng: np.random.Generator
    ) -> None:
        self._name = look.chamber
        rest = heart.rest.chambers[look.chamber]
        # In this order, each step on fewer scatterers than the one before: draw all of the wall,
        # keep what ever comes near the image plane, then what is ever uncovered.
        drawn = draw_in_wall(rest, rng)
        stations = [heart.at(phase).chambers[look.chamber].positions(drawn) for phase in STATIONS]
        away = np.stack([np.abs(plane.to_image(points, 0.0)[:, 2]) for points in stations])
        near = np.flatnonzero(away.min(axis=0) < REACH_CM + plane.drift_cm[2])
        stations = [points[near] for points in stations]
        self._cover = Cover(look.covered_by, heart, stations, _BETWEEN_STATIONS_CM)
        near = near[self._cover.bare]
        self._pieces = rest.pieces(drawn.angle[near], drawn.height_cm[near], drawn.share[near])
        points = rest.positions(self._pieces)
        self.level = _LEVEL * self._brightness(look, heart, plane) * patches(points, 2.5, rng)

    def positions(self, moment: Moment) -> np.ndarray:
        """See `Tissue`."""
        points = moment.anatomy.chambers[self._name].positions(self._pieces)
        self._cover.hide(points, moment.anatomy)
        return moment.to_image(points)

    def _brightness(self, look: WallLook, heart: Heart, plane: Plane) -> np.ndarray:
        """Fibres and borders along the beam reflect little of it back: lateral dropout."""
        rest = heart.rest.chambers[look.chamber]
        angle, height, share = self._pieces.angle, self._pieces.height_cm, self._pieces.share
        inner = rest.positions(rest.pieces(angle, height, np.zeros_like(share)))
        outer = rest.positions(rest.pieces(angle, height, np.ones_like(share)))
        others = [c for name, c in heart.rest.chambers.items() if name != look.chamber]
        gaps = [chamber.distance_cm(outer, 1.0) for chamber in others]
        free = np.min(gaps, axis=0) > 0.1
        facing = _facing(plane.to_image(outer, 0.0)[:, :2], plane.to_image(inner, 0.0)[:, :2])
        # `share` runs from 0 at the cavity to 1 outside: a bright line at each border, fading over
        # an eighth and a fifth of the wall. A border reflects as a mirror does, to the fourth power
        # of the cosine; muscle half evenly and half by the square of it.
        lines = look.endocardium * np.exp(-((share / 0.12) ** 2))
        lines = lines + look.pericardium * free * np.exp(-(((1.0 - share) / 0.2) ** 2))
        return np.asarray(look.level * (0.45 + 0.55 * facing**2) + lines * facing**4)


@dataclass(frozen=True)
class Field(Tissue):
    """Scatterers that stay in the image: chest wall, lung, liver, blood."""

    points: np.ndarray
    """[n, 2] centimetres."""
    level: np.ndarray
    pace: float
    cover: Cover | None = None
    """Hides what the heart covers now."""

    def positions(self, moment: Moment) -> np.ndarray:
        """See `Tissue`."""
        points = np.concatenate([self.points, np.zeros((len(self.points), 1))], axis=1)
        if self.cover is not None:
            inside = moment.to_heart(self.points)
            self.cover.hide(inside, moment.anatomy)
            points[np.isnan(inside[:, 0])] = np.nan
        return points


def draw_field(heart: Heart, plane: Plane, points: np.ndarray, level: np.ndarray) -> Field:
    """A still field under the heart: points [n, 2] without what the heart always covers."""
    layers = dict.fromkeys(heart.rest.chambers, 1.0)
    stations = [plane.to_heart(points, 0.0)] * len(STATIONS)
    margin_cm = _BETWEEN_STATIONS_CM + float(np.linalg.norm(plane.drift_cm))
    cover = Cover(layers, heart, stations, margin_cm)
    return Field(points[cover.bare], level[cover.bare], STILL_PACE, cover)


def patches(points: np.ndarray, size_cm: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth random brightness [n] around 1 over points [n, d], varying over `size_cm`."""
    # Six plane waves of random direction, of wave numbers around 2 / size.
    waves = rng.normal(0.0, 2.0 / size_cm, (points.shape[1], 6))
    return np.asarray(np.exp(0.12 * np.cos(points @ waves + rng.uniform(0, 6.28, 6)).sum(axis=1)))


def even_numbers(count: int, num_dims: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers [count, num_dims] from 0 to 1 that fill space more evenly than chance would.

    Chance leaves clumps, and clumps of scatterers make speckle darker and brighter in patches.
    """
    power = int(np.ceil(np.log2(max(count, 2))))
    return np.asarray(qmc.Sobol(num_dims, rng=rng).random_base2(power)[:count])


def draw_in_wall(chamber: Chamber, rng: np.random.Generator) -> Pieces:
    """Pieces with even density over a wall's volume at rest."""
    # Invert the distribution of the wall's volume over 64 x 64 cells of height and angle: first
    # the height, by the volume of whole rows, then the angle, by the volume within that row. The
    # third number is the share of muscle between cavity and piece, even by its definition.
    heights = np.linspace(0.0, chamber.shape.height_cm, 65)
    angles = np.linspace(-np.pi, np.pi, 65)
    middles = [0.5 * (edges[1:] + edges[:-1]) for edges in (heights, angles)]
    grid_height, grid_angle = np.meshgrid(*middles, indexing="ij")
    # A ring from r to R has the area (R^2 - r^2) / 2 per radian; muscle_cm2 is R^2 - r^2.
    muscle = chamber.shape.at(grid_angle.ravel(), grid_height.ravel()).muscle_cm2
    volumes = 0.5 * muscle.reshape(64, 64) * (heights[1] - heights[0]) * (angles[1] - angles[0])
    count = int(_SCATTERERS_PER_ML * volumes.sum())
    lots = even_numbers(count, 3, rng)
    level = np.interp(lots[:, 0], _cumulative(volumes.sum(axis=1)), np.arange(65.0))
    row = np.minimum(level.astype(np.intp), 63)
    angle = np.empty(count)
    order = np.argsort(row, kind="stable")
    for index, of_row in enumerate(np.split(order, np.searchsorted(row[order], np.arange(1, 64)))):
        angle[of_row] = np.interp(lots[of_row, 1], _cumulative(volumes[index]), angles)
    return chamber.pieces(angle, np.interp(level, np.arange(65.0), heights), lots[:, 2])


def _cumulative(shares: np.ndarray) -> np.ndarray:
    """The distribution function [n + 1] of shares [n]."""
    return np.asarray(np.concatenate([[0.0], np.cumsum(shares)]) / shares.sum())


def _facing(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """How squarely a wall between image points [n, 2] is hit by the beam: 0 to 1."""
    normals = outer - inner
    dots = np.abs((normals * outer).sum(axis=1))
    lengths = np.linalg.norm(normals, axis=1) * np.linalg.norm(outer, axis=1)
    return np.asarray(dots / np.maximum(lengths, 1e-9))
