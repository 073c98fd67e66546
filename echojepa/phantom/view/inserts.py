"""What moves inside of the chambers: valve leaflets and papillary muscles."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np

from echojepa.phantom.anatomy.heart import AORTIC_ANGLE_RAD, Heart, Valve
from echojepa.phantom.view.plane import Plane
from echojepa.phantom.view.tissue import MUSCLE_PACE, REACH_CM, STATIONS, Moment, Tissue

_LEAFLET_CM = 0.11
_LEAFLETS_PER_CM2 = 300.0
_PAPILLARY_PER_ML = 300.0
_COMMISSURES = 3
"""Of the aortic valve: its cusps meet on three lines."""


class Leaflets(Tissue):
    """The leaflets of one valve: a thin stiff skin that swings about its ring."""

    pace = MUSCLE_PACE

    def __init__(self, valve: str, heart: Heart, plane: Plane, rng: np.random.Generator) -> None:
        self._valve = valve
        rest = heart.rest.valves[valve]
        count = int(_LEAFLETS_PER_CM2 * np.pi * rest.radius_cm**2 * 1.3)
        self._angle = rng.uniform(-np.pi, np.pi, count)
        self._run = np.sqrt(rng.uniform(0.0, 1.0, count))
        """From the centre (0) to the hinge (1) when shut."""
        self._across_cm = _LEAFLET_CM * rng.uniform(-0.5, 0.5, count)
        near = np.zeros(count, bool)
        for phase, opening in product(STATIONS, (0.0, 1.0)):
            at = replace(phase, inflow_opening=opening, outflow_opening=opening)
            spots = self._spots(heart.at(at).valves[valve])
            near |= np.abs(plane.to_image(spots, 0.0)[:, 2]) < REACH_CM + plane.drift_cm[2]
        self._angle, self._run = self._angle[near], self._run[near]
        self._across_cm = self._across_cm[near]
        level = np.full(len(self._angle), 1.2)
        if valve == "aortic":
            lines = np.cos(_COMMISSURES * (self._angle - AORTIC_ANGLE_RAD))
            level = 0.5 + 1.6 * np.clip(lines, 0.0, 1.0) ** 8
        self.level = level / np.sqrt(_LEAFLETS_PER_CM2 * 0.5)

    def positions(self, moment: Moment) -> np.ndarray:
        """See `Tissue`."""
        return moment.to_image(self._spots(moment.anatomy.valves[self._valve]))

    def _spots(self, valve: Valve) -> np.ndarray:
        """Heart coordinates [n, 3]. The leaflets' length from hinge to tip is that of shut ones."""
        reach = valve.radius_cm * (1.0 - self._run) * 1.06
        if self._valve == "mitral":  # the leaflet beside the aortic root is the longer one
            reach = reach * (1.0 + 0.2 * np.cos(self._angle - AORTIC_ANGLE_RAD))
        shut = 0.3 if valve.towards < 0 else -0.25
        swing = shut + valve.opening * (1.25 - shut)
        bent = swing * (0.8 + 0.35 * (1.0 - self._run))
        radius = valve.radius_cm - reach * np.cos(bent)
        height = valve.towards * reach * np.sin(bent) + self._across_cm
        x = valve.center_cm[0] + radius * np.cos(self._angle)
        y = valve.center_cm[1] + radius * np.sin(self._angle)
        return np.stack([x, y, valve.center_cm[2] + height], axis=1)


class Papillary(Tissue):
    """A papillary muscle: a round bundle along the left ventricle's wall."""

    pace = MUSCLE_PACE

    def __init__(self, angle: float, heart: Heart, plane: Plane, rng: np.random.Generator) -> None:
        lv = heart.rest.chambers["lv"]
        self._radius = 0.2 * float(lv.shape.inner_cm.max())
        low, high = 0.36 * lv.shape.height_cm, 0.66 * lv.shape.height_cm
        count = int(_PAPILLARY_PER_ML * np.pi * self._radius**2 * (high - low))
        height = rng.uniform(low, high, count)
        self._roots = lv.pieces(np.full(count, angle), height, np.zeros(count))
        taper = np.sqrt(np.clip((height - low) / (0.3 * (high - low)), 0.2, 1.0))
        spread = self._radius * np.sqrt(rng.uniform(0.0, 1.0, count)) * taper
        turn = rng.uniform(0.0, 2.0 * np.pi, count)
        self._offset = np.stack(
            [spread * np.cos(turn), spread * np.sin(turn), np.zeros(count)], axis=1
        )
        points = plane.to_image(self._spots(Moment(heart.rest, plane, 0.0)), 0.0)
        near = np.abs(points[:, 2]) < REACH_CM + 1.0
        self._roots = lv.pieces(
            np.full(int(near.sum()), angle), height[near], np.zeros(int(near.sum()))
        )
        self._offset = self._offset[near]
        self.level = np.full(len(self._offset), 0.9 / np.sqrt(_PAPILLARY_PER_ML * 0.32))

    def positions(self, moment: Moment) -> np.ndarray:
        """See `Tissue`."""
        return moment.to_image(self._spots(moment))

    def _spots(self, moment: Moment) -> np.ndarray:
        lv = moment.anatomy.chambers["lv"]
        roots = lv.positions(self._roots)
        radius = np.linalg.norm(roots[:, :2], axis=1, keepdims=True)
        roots[:, :2] -= 0.55 * self._radius * roots[:, :2] / np.maximum(radius, 0.1)
        return np.asarray(roots + self._offset)


def draw_inserts(heart: Heart, plane: Plane, rng: np.random.Generator) -> list[Tissue]:
    """All valves, and both papillary muscles (anterolateral and posteromedial)."""
    valves = [Leaflets(name, heart, plane, rng) for name in heart.rest.valves]
    turns = (float(np.deg2rad(15.0)), float(np.deg2rad(128.0)))
    return [
        *valves,
        *(Papillary(turn + rng.normal(0.0, 0.08), heart, plane, rng) for turn in turns),
    ]
