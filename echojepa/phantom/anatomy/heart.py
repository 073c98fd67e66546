"""One patient's heart: its chambers, great vessel and valves, and how they move with the beat.

Heart frame, centimetres: z runs along the left ventricle's axis, 0 at its outer apex, growing
towards the atria; x points from the septum to the lateral wall; y from the anterior to the inferior
wall. One cubic centimetre is one millilitre. Angles turn about z: 0 is lateral, a quarter turn
inferior, a half turn the septum. All views are cuts of this one solid, and the labels are its
measures.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from echojepa.phantom.anatomy.chamber import (
    Chamber,
    Shape,
    WallMotion,
    tube_profile,
    ventricle_profile,
)
from echojepa.phantom.anatomy.cycle import Cycle, Phase

AORTIC_ANGLE_RAD = float(np.deg2rad(235.0))
"""The aortic root lies anteroseptally; the mitral valve and the left atrium on the other side."""
TIP_SHARE = 0.6
"""Thickness of a wall at its tip, as a share of the wall elsewhere."""

_LV_TRUNCATION, _RV_TRUNCATION, _ATRIAL_TRUNCATION = 0.6, 0.5, 0.55
_DIASTOLIC_FLATTENING = 0.35
"""Share of the septum's systolic flattening that stays in diastole."""


@dataclass(frozen=True)
class Valve:
    """A valve at one instant: leaflets on a ring around `center_cm` in a plane of constant z."""

    center_cm: tuple[float, float, float]
    radius_cm: float
    opening: float
    """0 shut, 1 wide open."""
    towards: int
    """+1 if the leaflets open towards larger z, else -1."""


@dataclass(frozen=True)
class Anatomy:
    """The heart at one instant."""

    chambers: dict[str, Chamber]
    """By name: lv, rv, rvot, la, ra, aorta."""
    valves: dict[str, Valve]
    """By name: mitral, tricuspid, aortic, pulmonary."""

    def distance_cm(self, points: np.ndarray) -> np.ndarray:
        """About how far points [n, 3] are outside of the heart."""
        return np.asarray(
            np.min([c.distance_cm(points, 1.0) for c in self.chambers.values()], axis=0)
        )


@dataclass(frozen=True)
class Heart:
    """The constants of one patient."""

    size: float
    """Linear scale of the body; 1 is a usual adult."""
    edv_ml: float
    ejection_fraction: float
    """Percent."""
    cycle: Cycle
    variability: float
    """Of the beats' lengths; see `draw_rhythm`."""
    lv_length_cm: float
    """Of the cavity at end-diastole."""
    lv_wall_cm: float
    """At end-diastole, about; `labels` has what it is where it is usually measured."""
    lv_taper: float
    """By what share it is thicker at the base and thinner at the apex."""
    shortening: float
    """Share of its length that the left ventricle loses in systole."""
    twist_rad: float
    """Between apex and base at an ejection fraction of 60 percent."""
    motion: WallMotion | None
    septal_flattening: float
    """Share of the radius by which the right ventricle's pressure pushes the septum in."""
    rv_dilation: float
    """0 is a usual right ventricle, 1 a very large one."""
    tapse_cm: float
    """Tricuspid annular plane systolic excursion."""
    atrial_length_cm: float

    @property
    def labels(self) -> dict[str, float]:
        """Measures of the usual beat: what a model may be asked.

        `lvef` (percent), `edv_ml`, `esv_ml`, `heart_rate` (beats per minute), `wall_cm` (lateral
        wall, mid-level, end-diastole), `tapse_cm` and `rvsp` (mmHg). No single view tells `rvsp`:
        the septum's flattening shows in short axis, the right ventricle's size in four-chamber
        views, and each gives half of it.
        """
        esv = self.at(Phase(1.0, 0.0, 0.0, 0.0)).chambers["lv"].volume_ml()
        edv = self.rest.chambers["lv"].volume_ml()
        return {
            "lvef": 100.0 * (edv - esv) / edv,
            "edv_ml": edv,
            "esv_ml": esv,
            "heart_rate": self.cycle.heart_rate,
            "wall_cm": self.rest.chambers["lv"].thickness_cm(0.0, 0.5),
            "tapse_cm": self.tapse_cm,
            "rvsp": 20.0 + 80.0 * self.septal_flattening + 32.0 * self.rv_dilation,
        }

    @cached_property
    def rest(self) -> Anatomy:
        """The heart at end-diastole."""
        return self.at(Phase(0.0, 0.0, 0.0, 0.0))

    def at(self, phase: Phase) -> Anatomy:
        """The heart at a phase of the beat."""
        out = phase.emptying
        lv = self._lv(out)
        base = self._base_cm * lv.stretch
        sinking = (0.0, 0.0, base - self._base_cm)
        tricuspid = self._tricuspid_cm - self.tapse_cm * out
        vigour = out * min(self.tapse_cm / (2.2 * self.size), 1.2)
        rv, la, ra = self._rv_shape, self._la_shape, self._ra_shape
        chambers = {
            "lv": lv,
            "rv": Chamber(
                rv, (tricuspid - rv.origin_cm[2]) / rv.height_cm, 0.18 * vigour, contraction=0.0
            ),
            "rvot": Chamber(self._rvot_shape, squeeze=0.2 * vigour, shift_cm=sinking),
            "la": Chamber(la, (la.origin_cm[2] - base) / la.height_cm, 0.06 - 0.1 * out),
            "ra": Chamber(ra, (ra.origin_cm[2] - tricuspid) / ra.height_cm, 0.06 - 0.1 * out),
            "aorta": Chamber(self._aorta_shape, squeeze=-0.04 * out, shift_cm=sinking),
        }
        return Anatomy(chambers, self._valves(phase, base, tricuspid))

    def _lv(self, out: float) -> Chamber:
        stretch = 1.0 - self.shortening * out
        share = _DIASTOLIC_FLATTENING + (1.0 - _DIASTOLIC_FLATTENING) * min(out, 1.0)
        flattening = self.septal_flattening * share
        volume = self.edv_ml * (1.0 - 0.01 * self.ejection_fraction * out)
        twist = out * self.ejection_fraction / 60.0
        squeeze = Chamber(self._lv_shape, stretch, 0.0, flattening).squeeze_for(volume)
        return Chamber(self._lv_shape, stretch, squeeze, flattening, twist)

    def _valves(self, phase: Phase, base_cm: float, tricuspid_cm: float) -> dict[str, Valve]:
        mitral_x, mitral_y = _polar(0.35 * self._rim_cm, AORTIC_ANGLE_RAD + np.pi)
        aortic_x, aortic_y = _polar(0.6 * self._rim_cm, AORTIC_ANGLE_RAD)
        near, far = self._tricuspid_span_cm
        ring = 1.0 - 0.1 * phase.emptying
        inflow, outflow = phase.inflow_opening, phase.outflow_opening
        half = 0.5 * (near - far)
        rvot = self._rvot_shape
        x, y, z = np.asarray(rvot.origin_cm) + rvot.height_cm * np.asarray(rvot.axis)
        pulmonary_cm = (float(x), float(y), float(z) + base_cm - self._base_cm)
        return {
            "mitral": Valve((mitral_x, mitral_y, base_cm), 0.64 * self._rim_cm * ring, inflow, -1),
            "tricuspid": Valve((far + half, 0.0, tricuspid_cm), half * ring, inflow, -1),
            "aortic": Valve((aortic_x, aortic_y, base_cm), self._root_cm, outflow, 1),
            "pulmonary": Valve(pulmonary_cm, float(rvot.inner_cm[-1]), outflow, 1),
        }

    @cached_property
    def _lv_shape(self) -> Shape:
        unit = self._lv_profile(1.0)
        radius = float(np.sqrt(self.edv_ml / Chamber(unit).volume_ml()))
        return self._lv_profile(radius)

    def _lv_profile(self, radius_cm: float) -> Shape:
        heights, inner, outer = ventricle_profile(
            self.lv_length_cm, radius_cm, self.lv_wall_cm, _LV_TRUNCATION, TIP_SHARE, self.lv_taper
        )
        # Seen from the apex, the apex turns against the clock and the base with it.
        twist = (-0.65 * self.twist_rad, 0.35 * self.twist_rad)
        right = float(np.deg2rad(195.0))
        up = (0.0, 0.0, 1.0)
        return Shape((0.0, 0.0, 0.0), up, heights, inner, outer, 1.0, twist, right, self.motion)

    @property
    def _base_cm(self) -> float:
        """z of the mitral plane at rest."""
        return self._lv_shape.height_cm

    @property
    def _rim_cm(self) -> float:
        """Radius of the left ventricle's open end at rest."""
        return float(self._lv_shape.inner_cm[-1])

    @property
    def _root_cm(self) -> float:
        """Radius of the aortic root."""
        return float(0.95 * self.size**0.8)

    @property
    def _tricuspid_cm(self) -> float:
        """z of the tricuspid plane at rest: nearer to the apex than the mitral one."""
        return self._base_cm - 0.45 * self.size

    @property
    def _septum_cm(self) -> float:
        """From the axis to the septum's right side, mid-level."""
        return float(self._lv_shape.outer_cm.max())

    @property
    def _tricuspid_span_cm(self) -> tuple[float, float]:
        """x of the septal and of the lateral hinge."""
        rv = self._rv_shape
        septal = -float(
            np.interp(self._tricuspid_cm, self._lv_shape.heights_cm, self._lv_shape.outer_cm)
        )
        return septal, rv.origin_cm[0] - float(rv.inner_cm[-1])

    @cached_property
    def _rv_shape(self) -> Shape:
        """Wrapped around the septum; what lies inside of the left ventricle is cut away."""
        tip = 0.18 * self._base_cm
        width = 0.42 * self._septum_cm + (2.1 + 1.5 * self.rv_dilation) * self.size
        wall = 0.32 * self.size
        length = self._tricuspid_cm - tip - TIP_SHARE * wall
        profile = ventricle_profile(length, width, wall, _RV_TRUNCATION, TIP_SHARE)
        center = (-0.62 * self._septum_cm, -0.2 * self._septum_cm, tip)
        aspect = (self._septum_cm + 0.1 * self.size) / width
        return Shape(center, (0.0, 0.0, 1.0), *profile, aspect=aspect)

    @cached_property
    def _rvot_shape(self) -> Shape:
        """The outflow tract: over the anterior septum and across the aortic root."""
        x, y = _polar(self._septum_cm + 0.7 * self.size, float(np.deg2rad(246.0)))
        start = 0.42 * self._base_cm
        radius = (1.15 + 0.3 * self.rv_dilation) * self.size
        wall = 0.28 * self.size
        length = self._base_cm + 1.6 * self.size - start - TIP_SHARE * wall
        profile = ventricle_profile(length, radius, wall, 0.75, TIP_SHARE)
        axis = _unit((0.1, 0.12, 1.0))
        return Shape((x, y, start), axis, *profile)

    @cached_property
    def _la_shape(self) -> Shape:
        x, y = _polar(0.38 * self._rim_cm, AORTIC_ANGLE_RAD + np.pi)
        return self._atrium(x, y, 1.0, self._base_cm + self.atrial_length_cm, self._base_cm)

    @cached_property
    def _ra_shape(self) -> Shape:
        near, far = self._tricuspid_span_cm
        back = self._base_cm + (0.8 + 0.25 * self.rv_dilation) * self.atrial_length_cm
        scale = 0.95 + 0.25 * self.rv_dilation
        return self._atrium(0.5 * (near + far), 0.1, scale, back, self._tricuspid_cm)

    def _atrium(self, x: float, y: float, scale: float, back: float, mouth: float) -> Shape:
        """Closed behind, open at its valve; grows with the body rather than with the ventricle."""
        wall = 0.22 * self.size
        radius = scale * (
            0.45 * self._rim_cm / np.sqrt(1 - _ATRIAL_TRUNCATION**2) + 1.0 * self.size
        )
        length = back - mouth - TIP_SHARE * wall
        profile = ventricle_profile(length, radius, wall, _ATRIAL_TRUNCATION, TIP_SHARE)
        return Shape((x, y, back), (0.0, 0.0, -1.0), *profile)

    @cached_property
    def _aorta_shape(self) -> Shape:
        x, y = _polar(0.6 * self._rim_cm, AORTIC_ANGLE_RAD)
        lean_x, lean_y = _polar(0.35, AORTIC_ANGLE_RAD)
        profile = tube_profile(5.5 * self.size, self._root_cm, 0.16 * self.size**0.5, bulge=0.22)
        return Shape((x, y, self._base_cm), _unit((lean_x, lean_y, 1.0)), *profile)


def _polar(radius: float, angle_rad: float) -> tuple[float, float]:
    return radius * float(np.cos(angle_rad)), radius * float(np.sin(angle_rad))


def _unit(vector: tuple[float, float, float]) -> tuple[float, float, float]:
    x, y, z = np.asarray(vector) / np.linalg.norm(vector)
    return float(x), float(y), float(z)
