"""Clouds of scatterers and how each kind of tissue carries them.

A scatterer has material coordinates, drawn once at end-diastole; `place` puts it where the tissue
has moved to. Points are (lateral, depth) in centimetres with the probe at the origin. A scatterer
that another structure covers is at NaN. Levels are amplitudes relative to muscle, times the square
root of the area (cm^2) one scatterer stands for, so that a cloud's density doesn't show.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from echojepa.data.phantom.chamber import Chamber, Cut
from echojepa.data.phantom.heart import Anatomy, Valve

SCATTERERS_PER_CM2 = 120.0
"""Above ten per resolution cell from 3 cm on: the limit in which speckle is fully developed."""

MUSCLE_PACE = 1.0
BLOOD_PACE = 15.0
"""How much faster than muscle blood decorrelates."""
STILL_PACE = 0.0
"""Tissue that doesn't move with the heart keeps its speckle."""


@dataclass(frozen=True)
class Pose:
    """Where the cut lies in the image: turned, shifted, and riding on the breath."""

    origin_cm: tuple[float, float]
    """Image of the cut's (0, 0)."""
    tilt_rad: float
    breath_cm: float
    """Amplitude of the drift in depth."""
    breath_seconds: float

    def to_image(self, points: np.ndarray, seconds: float) -> np.ndarray:
        """Cut coordinates [n, 2] to image coordinates [n, 2]."""
        return np.asarray(points @ self._rotation().T + self._shift(seconds))

    def to_cut(self, points: np.ndarray, seconds: float) -> np.ndarray:
        """Image coordinates [n, 2] to cut coordinates [n, 2]."""
        return np.asarray((points - self._shift(seconds)) @ self._rotation())

    def _rotation(self) -> np.ndarray:
        cos, sin = np.cos(self.tilt_rad), np.sin(self.tilt_rad)
        return np.array([[cos, -sin], [sin, cos]])

    def _shift(self, seconds: float) -> np.ndarray:
        drift = self.breath_cm * np.sin(2.0 * np.pi * seconds / self.breath_seconds)
        return np.array([self.origin_cm[0], self.origin_cm[1] + drift])


@dataclass(frozen=True)
class Moment:
    """The heart at one instant, cut and posed."""

    anatomy: Anatomy
    cuts: dict[str, Cut]
    pose: Pose

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """Cut coordinates [n, 2] to image coordinates [n, 2]."""
        return self.pose.to_image(points, self.anatomy.seconds)

    def distance_cm(self, points: np.ndarray, names: Sequence[str], layer: float) -> np.ndarray:
        """About how far image points [n, 2] are outside of the nearest named chamber."""
        local = self.pose.to_cut(points, self.anatomy.seconds)
        distances = [self.cuts[name].distance_cm(local, layer) for name in names]
        return np.asarray(np.min(distances, axis=0))


class Tissue(ABC):
    """One cloud of scatterers."""

    level: np.ndarray
    """Amplitudes [n]."""
    pace: float
    """Rate of decorrelation relative to muscle."""

    @abstractmethod
    def place(self, moment: Moment) -> np.ndarray:
        """Image points [n, 2] at one instant."""


@dataclass(frozen=True)
class WallLook:
    """How bright a chamber's wall is, and which chambers lie over it."""

    chamber: str
    level: float
    endocardium: float
    """Extra level of the inner border where it faces the beam."""
    pericardium: float
    """Extra level of the outer border where it faces the beam and no other chamber adjoins."""
    covered_by: tuple[str, ...] = ()


class Wall(Tissue):
    """A chamber's wall: scatterers keep their turn and their share of muscle inside of them."""

    pace = MUSCLE_PACE

    def __init__(self, look: WallLook, rest: Moment, rng: np.random.Generator) -> None:
        self._look = look
        cut = rest.cuts[look.chamber]
        self._turn, layer = _draw_in_wall(cut, rng)
        self._muscle_share = self._chamber(rest).muscle_share(layer)
        inner = rest.to_image(cut.points(self._turn, np.zeros_like(layer)))
        outer = rest.to_image(cut.points(self._turn, np.ones_like(layer)))
        others = [name for name in rest.cuts if name != look.chamber]
        free = rest.distance_cm(outer, others, 1.0) > 0.1
        facing = _facing(outer - inner, outer)
        lines = look.endocardium * np.exp(-((layer / 0.12) ** 2))
        lines = lines + look.pericardium * free * np.exp(-(((1.0 - layer) / 0.2) ** 2))
        # Fibres and borders along the beam reflect little of it back: lateral dropout.
        level = look.level * (0.45 + 0.55 * facing**2) + lines * facing**4
        self.level = level * patches(outer, 2.5, rng) / np.sqrt(SCATTERERS_PER_CM2)

    def place(self, moment: Moment) -> np.ndarray:
        layer = self._chamber(moment).layer_of(self._muscle_share)
        local = moment.cuts[self._look.chamber].points(self._turn, layer)
        for name in self._look.covered_by:
            local[moment.cuts[name].distance_cm(local, 1.0) < 0.0] = np.nan
        return moment.to_image(local)

    def _chamber(self, moment: Moment) -> Chamber:
        return moment.anatomy.chambers[self._look.chamber]


class Leaflet(Tissue):
    """One leaflet of an inflow valve: a thin stiff curve that swings about its hinge."""

    pace = MUSCLE_PACE

    def __init__(self, valve: str, hinge: int, rest: Moment, rng: np.random.Generator) -> None:
        self._valve, self._hinge = valve, hinge
        # The septal (anterior) leaflet is the longer one.
        self._share = 0.58 if hinge == 0 else 0.42
        self._length_cm = self._share * self._state(rest).width_cm / np.cos(0.35)
        count = int(3.0 * SCATTERERS_PER_CM2 * 0.12 * self._length_cm)
        self._along = rng.uniform(0.0, 1.0, count)
        self._across_cm = 0.12 * rng.uniform(-0.5, 0.5, count)
        self.level = np.full(count, 1.5 / np.sqrt(3.0 * SCATTERERS_PER_CM2))

    def place(self, moment: Moment) -> np.ndarray:
        state = self._state(moment)
        # Shut, both tips meet; as the ring narrows in systole they meet deeper in the ventricle.
        shut = np.arccos(np.clip(self._share * state.width_cm / self._length_cm, 0.3, 1.0))
        swing = shut + state.opening * (1.15 - shut)
        angle = swing * (0.75 + 0.4 * self._along)
        inward = np.sign(state.hinges_cm[1] - state.hinges_cm[0]) * (1 - 2 * self._hinge)
        run = self._length_cm * self._along
        x = state.hinges_cm[self._hinge] + inward * run * np.cos(angle)
        z = state.plane_cm - run * np.sin(angle) + self._across_cm
        return moment.to_image(np.stack([x, z], axis=1))

    def _state(self, moment: Moment) -> Valve:
        return moment.anatomy.mitral if self._valve == "mitral" else moment.anatomy.tricuspid


class Papillary(Tissue):
    """A papillary muscle in short axis: a round bundle that rides on the left ventricle's wall."""

    pace = MUSCLE_PACE

    def __init__(self, turn: float, rest: Moment, rng: np.random.Generator) -> None:
        self._turn = np.array([turn])
        radius = 0.24 * rest.cuts["lv"].inner_cm[0]
        count = int(SCATTERERS_PER_CM2 * np.pi * radius**2)
        spread = radius * np.sqrt(rng.uniform(0.0, 1.0, count))
        angle = rng.uniform(0.0, 2.0 * np.pi, count)
        self._offsets = np.stack([spread * np.cos(angle), spread * np.sin(angle)], axis=1)
        self._inset_cm = 0.6 * radius
        self.level = np.full(count, 0.9 / np.sqrt(SCATTERERS_PER_CM2))

    def place(self, moment: Moment) -> np.ndarray:
        cut = moment.cuts["lv"]
        root = cut.points(self._turn, np.zeros(1))[0]
        inward = np.asarray(cut.center_cm) - root
        root = root + self._inset_cm * inward / np.linalg.norm(inward)
        return moment.to_image(root + self._offsets)


@dataclass(frozen=True)
class Field(Tissue):
    """Scatterers that stay in the image: chest wall, lung, blood."""

    points: np.ndarray
    """[n, 2] centimetres."""
    level: np.ndarray
    pace: float
    under_heart: bool
    """Covered wherever the heart is now."""

    def place(self, moment: Moment) -> np.ndarray:
        if not self.under_heart:
            return self.points
        hidden = moment.distance_cm(self.points, list(moment.cuts), 1.0) < 0.0
        return np.where(hidden[:, None], np.nan, self.points)


def patches(points: np.ndarray, size_cm: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth random brightness [n] around 1 over points [n, 2], varying over `size_cm`."""
    waves = rng.normal(0.0, 2.0 / size_cm, (2, 6))
    return np.asarray(np.exp(0.12 * np.cos(points @ waves + rng.uniform(0, 6.28, 6)).sum(axis=1)))


def _draw_in_wall(cut: Cut, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Turns and layers [n] of scatterers with even density over a wall's area."""
    edges = np.linspace(-1.0, 1.0, 361)
    inner, middle, outer = (cut.points(edges, np.full(361, at)) for at in (0.0, 0.5, 1.0))
    steps = np.linalg.norm(np.diff(middle, axis=0), axis=1)
    thickness = np.linalg.norm(outer - inner, axis=1)
    areas = steps * 0.5 * (thickness[1:] + thickness[:-1])
    count = int(SCATTERERS_PER_CM2 * areas.sum())
    cumulative = np.concatenate([[0.0], np.cumsum(areas)]) / areas.sum()
    turn = np.interp(rng.uniform(0.0, 1.0, count), cumulative, edges)
    return turn, rng.uniform(0.0, 1.0, count)


def _facing(normals: np.ndarray, points: np.ndarray) -> np.ndarray:
    """How squarely surfaces [n, 2] are hit by the beam through points [n, 2]: 0 to 1."""
    dots = np.abs((normals * points).sum(axis=1))
    lengths = np.linalg.norm(normals, axis=1) * np.linalg.norm(points, axis=1)
    return np.asarray(dots / lengths)
