"""The standard views: how each cuts the heart, what it shows, and how it lies in the image.

A new view is one more entry of `VIEWS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from echojepa.data.phantom.chamber import Cut
from echojepa.data.phantom.heart import Anatomy, Heart
from echojepa.data.phantom.surroundings import draw_surroundings
from echojepa.data.phantom.tissue import Leaflet, Moment, Papillary, Pose, Tissue, Wall, WallLook


@dataclass(frozen=True)
class View:
    """One standard view."""

    cut: Callable[[Heart, Anatomy], dict[str, Cut]]
    """The chambers that the image plane meets."""
    walls: tuple[WallLook, ...]
    inserts: Callable[[Moment, np.random.Generator], list[Tissue]]
    """Valves and muscles inside of the cavities, drawn at end-diastole."""
    pose: Callable[[Heart, np.random.Generator], Pose]
    depth_cm: Callable[[Heart], float]
    """Depth from the pose's origin to the far end of the heart."""
    slip_cm: Callable[[Heart, Anatomy], float]
    """How far the tissue has moved through the image plane since end-diastole."""


class Scene:
    """One heart in one view: all of its scatterers, and where they are at any time."""

    def __init__(self, heart: Heart, view: str, rng: np.random.Generator) -> None:
        self._heart, self._view = heart, VIEWS[view]
        self._pose = self._view.pose(heart, rng)
        self.depth_cm = self._pose.origin_cm[1] + self._view.depth_cm(heart) + rng.uniform(0.8, 2.0)
        """Of the sector that shows it."""
        rest = self.moment(0.0)
        self._tissues: list[Tissue] = [Wall(look, rest, rng) for look in self._view.walls]
        self._tissues += self._view.inserts(rest, rng)
        self._tissues += draw_surroundings(rest, self.depth_cm, rng)
        self.level = np.concatenate([tissue.level for tissue in self._tissues])
        """Amplitudes [n]."""
        self.pace = np.concatenate([np.full(len(t.level), t.pace) for t in self._tissues])
        """Rates of decorrelation [n] relative to muscle."""

    def moment(self, seconds: float) -> Moment:
        """The heart at a time, cut and posed."""
        anatomy = self._heart.at(seconds)
        return Moment(anatomy, self._view.cut(self._heart, anatomy), self._pose)

    def place(self, seconds: float) -> np.ndarray:
        """Image points float32 [n, 2] of all scatterers (NaN where covered)."""
        moment = self.moment(seconds)
        points = np.concatenate([tissue.place(moment) for tissue in self._tissues])
        return np.asarray(points.astype(np.float32))

    def slip_cm(self, seconds: float) -> float:
        """How far the tissue has moved through the image plane since end-diastole."""
        return self._view.slip_cm(self._heart, self._heart.at(seconds))


def _apical_cut(heart: Heart, anatomy: Anatomy) -> dict[str, Cut]:
    return {name: chamber.long_cut() for name, chamber in anatomy.chambers.items()}


def _inflow_valves(rest: Moment, rng: np.random.Generator) -> list[Tissue]:
    return [
        Leaflet(valve, hinge, rest, rng) for valve in ("mitral", "tricuspid") for hinge in (0, 1)
    ]


def _apical_pose(heart: Heart, rng: np.random.Generator) -> Pose:
    """The apex under the probe, the septum near the middle of the image."""
    return Pose(
        origin_cm=(rng.normal(1.2, 0.4), rng.uniform(2.0, 2.8)),
        tilt_rad=rng.normal(0.05, 0.08),
        breath_cm=rng.uniform(0.05, 0.2),
        breath_seconds=rng.uniform(3.0, 5.0),
    )


def _papillary_level_cm(heart: Heart) -> float:
    """z of the short-axis plane: half-way along the cavity at end-diastole."""
    lv = heart.rest.chambers["lv"]
    return lv.tip_cm + 0.5 * lv.length_cm


def _short_axis_cut(heart: Heart, anatomy: Anatomy) -> dict[str, Cut]:
    level = _papillary_level_cm(heart)
    return {name: anatomy.chambers[name].short_cut(level) for name in ("lv", "rv")}


def _papillary_muscles(rest: Moment, rng: np.random.Generator) -> list[Tissue]:
    """The anterolateral one at about 4 o'clock, the posteromedial one at about 8."""
    return [Papillary(turn + rng.normal(0.0, 0.03), rest, rng) for turn in (0.68, -0.72)]


def _short_axis_pose(heart: Heart, rng: np.random.Generator) -> Pose:
    """The left ventricle right of the middle, the right one towards the probe on the left."""
    lv = heart.rest.chambers["lv"]
    outside = lv.radius_cm[1] + lv.wall_cm
    return Pose(
        origin_cm=(rng.normal(0.9, 0.4), rng.uniform(2.6, 3.4) + outside),
        tilt_rad=rng.normal(0.35, 0.12),
        breath_cm=rng.uniform(0.05, 0.2),
        breath_seconds=rng.uniform(3.0, 5.0),
    )


def _short_axis_slip_cm(heart: Heart, anatomy: Anatomy) -> float:
    """The base descends towards a still apex, the plane's tissue in proportion."""
    base = heart.rest.mitral.plane_cm
    return _papillary_level_cm(heart) / base * (base - anatomy.mitral.plane_cm)


VIEWS = {
    "A4C": View(
        cut=_apical_cut,
        walls=(
            WallLook("lv", level=1.0, endocardium=1.5, pericardium=2.5),
            WallLook("rv", level=0.8, endocardium=1.0, pericardium=2.0, covered_by=("lv",)),
            WallLook("la", level=0.8, endocardium=1.0, pericardium=3.0),
            WallLook("ra", level=0.8, endocardium=1.0, pericardium=2.5, covered_by=("lv", "la")),
        ),
        inserts=_inflow_valves,
        pose=_apical_pose,
        depth_cm=lambda heart: heart.rest.chambers["la"].tip_cm,
        slip_cm=lambda heart, anatomy: 0.0,
    ),
    "PSAX-PM": View(
        cut=_short_axis_cut,
        walls=(
            WallLook("lv", level=1.0, endocardium=1.2, pericardium=4.0),
            WallLook("rv", level=0.8, endocardium=1.0, pericardium=1.5, covered_by=("lv",)),
        ),
        inserts=_papillary_muscles,
        pose=_short_axis_pose,
        depth_cm=lambda heart: heart.rest.chambers["lv"].radius_cm[1] + heart.lv_wall_cm + 0.8,
        slip_cm=_short_axis_slip_cm,
    ),
}
"""By the name that the manifest's column `view` holds."""
