"""The standard views: where the probe stands, and which plane it cuts.

A new view is one more entry of `VIEWS`. Standards: Mitchell et al., J. Am. Soc. Echocardiogr.
32:1, 2019.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from echojepa.phantom.anatomy.heart import AORTIC_ANGLE_RAD, Heart
from echojepa.phantom.view.plane import Plane

ViewName = Literal[
    "A4C", "A5C", "A2C", "A3C", "PLAX", "PSAX-AV", "PSAX-MV", "PSAX-PM", "PSAX-AP", "SC4C", "OTHER"
]

_UP = np.array([0.0, 0.0, 1.0])
_BEAM_CM = np.linspace(-16.0, 16.0, 321)


@dataclass(frozen=True)
class View:
    """One standard view."""

    plane: Callable[[Heart, np.random.Generator], Plane]
    """The textbook plane, aimed at a landmark where its probe still stands."""
    window: Literal["apical", "parasternal", "subcostal"]
    """Through what the heart is seen."""
    wobble_deg: tuple[float, float, float] = (7.0, 3.0, 6.0)
    """Standard deviation of rotation, tilt and rock in practice."""


def draw_plane(view: str, heart: Heart, chest: float, rng: np.random.Generator) -> Plane:
    """Draw a sonographer's try at a view: turned, tilted, shifted, foreshortened.

    `chest` scales the distance from the skin to the heart.
    """
    kind = VIEWS[view]
    plane = kind.plane(heart, rng)
    gap = rng.uniform(3.2, 4.6) if kind.window == "subcostal" else rng.uniform(1.5, 2.6)
    scale = heart.size * (0.4 + 0.6 * chest)
    plane = plane.moved(nearest_cm(heart, plane) - gap * scale)
    offset = rng.normal(0.0, (0.5, 0.25), 2) * heart.size
    probe = plane.probe_cm + offset[0] * plane.axes[0] + offset[1] * plane.axes[2]
    rotation, tilt, rock = np.deg2rad(rng.normal(0.0, kind.wobble_deg))
    breath_cm, seconds = rng.uniform(0.08, 0.35) * heart.size, rng.uniform(3.0, 5.0)
    return Plane(probe, plane.axes, breath_cm, seconds).turned(rotation, tilt, rock)


def nearest_cm(heart: Heart, plane: Plane) -> float:
    """Where the middle beam first meets the heart, from the plane's probe position."""
    points = plane.probe_cm + _BEAM_CM[:, None] * plane.axes[1]
    inside = heart.rest.distance_cm(points) < 0.0
    return float(_BEAM_CM[np.argmax(inside)]) if inside.any() else 0.0


def _azimuth(angle_rad: float) -> np.ndarray:
    return np.array([np.cos(angle_rad), np.sin(angle_rad), 0.0])


def _apical(lateral_deg: float) -> Callable[[Heart, np.random.Generator], Plane]:
    """From the apex, with the wall at an angle on the right of the image."""

    def plane(heart: Heart, rng: np.random.Generator) -> Plane:
        away = np.array([-0.9, -0.3, 0.0]) * heart.size  # the septum, not the axis, in the middle
        lateral = _azimuth(np.deg2rad(lateral_deg))
        inside = (away @ lateral) * lateral
        return Plane.aimed(inside, _UP - 0.02 * inside, lateral)

    return plane


def _five_chamber(heart: Heart, rng: np.random.Generator) -> Plane:
    """The four-chamber plane tilted forward until it cuts the aortic root."""
    root = np.asarray(heart.rest.valves["aortic"].center_cm)
    start = np.array([-0.7 * heart.size, 0.0, 0.0])
    return Plane.aimed(start, np.array([0.0, root[1], root[2]]), np.array([1.0, 0.0, 0.0]))


def _parasternal_long(heart: Heart, rng: np.random.Generator) -> Plane:
    """From the front, across the axis: apex to the left, aorta to the right."""
    lv = heart.rest.chambers["lv"]
    at = np.array([0.0, 0.0, 0.8 * lv.shape.height_cm])
    return Plane.aimed(at, _azimuth(AORTIC_ANGLE_RAD + np.pi), _UP)


def _parasternal_short(level: float, beyond: float = 0.0) -> Callable[..., Plane]:
    """From the front, a plane of constant z: `level` of the ventricle's height, or beyond it."""

    def plane(heart: Heart, rng: np.random.Generator) -> Plane:
        height = heart.rest.chambers["lv"].shape.height_cm
        at = np.array([-0.6 * heart.size, 0.0, level * height + beyond * heart.size])
        depth = _azimuth(np.deg2rad(72.0))
        return Plane.aimed(at, depth, _azimuth(np.deg2rad(-18.0)))

    return plane


def _subcostal(heart: Heart, rng: np.random.Generator) -> Plane:
    """Through the liver: the right heart near the probe, the apex to the right."""
    height = heart.rest.chambers["lv"].shape.height_cm
    at = np.array([-1.0 * heart.size, 0.0, 0.72 * height])
    return Plane.aimed(at, np.array([0.9, -0.05, 0.42]), -_UP)


def _other(heart: Heart, rng: np.random.Generator) -> Plane:
    """No standard view: an oblique plane, at least 28 degrees away from all of theirs."""
    height = heart.rest.chambers["lv"].shape.height_cm
    at = np.array([0.0, 0.0, height * rng.uniform(0.4, 0.9)]) + rng.normal(0.0, 0.8, 3)
    while True:
        depth, lateral = rng.normal(0.0, 1.0, (2, 3))
        plane = Plane.aimed(at, depth, lateral)
        normals = [VIEWS[name].plane(heart, rng).axes[2] for name in STANDARD_VIEWS]
        if np.abs(normals @ plane.axes[2]).max() < np.cos(np.deg2rad(28.0)):
            return plane


VIEWS: dict[str, View] = {
    "A4C": View(_apical(0.0), "apical", (7.0, 2.0, 6.0)),
    "A5C": View(_five_chamber, "apical", (7.0, 2.0, 6.0)),
    "A2C": View(_apical(-80.0), "apical"),
    "A3C": View(_apical(float(np.rad2deg(AORTIC_ANGLE_RAD))), "apical"),
    "PLAX": View(_parasternal_long, "parasternal"),
    "PSAX-AV": View(_parasternal_short(1.0, 0.9), "parasternal"),
    "PSAX-MV": View(_parasternal_short(0.8), "parasternal"),
    "PSAX-PM": View(_parasternal_short(0.52), "parasternal"),
    "PSAX-AP": View(_parasternal_short(0.2), "parasternal"),
    "SC4C": View(_subcostal, "subcostal"),
    "OTHER": View(_other, "apical"),
}
"""By the name that the manifest's column `view` holds."""
STANDARD_VIEWS = tuple(name for name in VIEWS if name != "OTHER")
assert tuple(VIEWS) == get_args(ViewName)
