"""One patient's heart: four chambers, two inflow valves, and how they move through the beat.

Both views are plane cuts of this one solid. Labels are its volumes: the left ventricle is a
truncated prolate ellipsoid, so its ejection fraction is exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from echojepa.data.phantom.chamber import TIP_THINNING, Chamber, wall_for_muscle
from echojepa.data.phantom.cycle import Cycle

EJECTION_FRACTION_RANGE = (15.0, 75.0)
"""Percent."""
HEART_RATE_RANGE = (45.0, 160.0)
"""Beats per minute."""

_LV_TRUNCATION = 0.6
_RV_TRUNCATION = 0.5
_ATRIAL_TRUNCATION = 0.55
_RV_WALL_CM = 0.35
_ATRIAL_WALL_CM = 0.22
_TRICUSPID_SHIFT_CM = 0.4
"""The tricuspid valve sits this much nearer to the apex than the mitral valve."""


@dataclass(frozen=True)
class Valve:
    """An inflow valve in the plane y = 0 at one instant."""

    hinges_cm: tuple[float, float]
    """x of the two hinges; the one nearer to the septum first."""
    plane_cm: float
    """z of the hinges."""
    opening: float
    """0 shut, 1 wide open."""

    @property
    def width_cm(self) -> float:
        """Distance of the hinges."""
        return abs(self.hinges_cm[1] - self.hinges_cm[0])


@dataclass(frozen=True)
class Anatomy:
    """The heart at one instant."""

    seconds: float
    """Since the R wave of the clip's first beat."""
    chambers: dict[str, Chamber]
    """By name: lv, rv, la, ra."""
    mitral: Valve
    tricuspid: Valve


@dataclass(frozen=True)
class Heart:
    """The constants of one patient."""

    edv_ml: float
    ejection_fraction: float
    """Percent."""
    cycle: Cycle
    lv_length_cm: float
    """Of the cavity at end-diastole."""
    lv_wall_cm: float
    """At end-diastole."""
    shortening: float
    """Share of its length that the left ventricle loses in systole."""
    rv_width_cm: float
    """From the septum to the right free wall, mid-level, at end-diastole."""
    atrial_length_cm: float

    @property
    def labels(self) -> dict[str, float]:
        """What a model may be asked: `lvef` (percent), `edv_ml`, `esv_ml`, `heart_rate` (bpm)."""
        end_systole = self.at(self.cycle.systole_seconds).chambers["lv"]
        edv, esv = float(self._lv_relaxed.volume_ml()), float(end_systole.volume_ml())
        return {
            "lvef": 100.0 * (edv - esv) / edv,
            "edv_ml": edv,
            "esv_ml": esv,
            "heart_rate": self.cycle.heart_rate,
        }

    @cached_property
    def rest(self) -> Anatomy:
        """The heart at end-diastole."""
        return self.at(0.0)

    def at(self, seconds: float) -> Anatomy:
        """The heart at a time after an R wave (any number of beats later, too)."""
        emptying = float(self.cycle.emptying(seconds))
        opening = float(self.cycle.inflow_opening(seconds))
        lv = self._lv(emptying)
        excursion = self._lv_relaxed.plane_cm - lv.plane_cm
        rv = self._rv(emptying, excursion)
        la, ra = self._atria(emptying, lv.plane_cm, rv.plane_cm)
        chambers = {"lv": lv, "rv": rv, "la": la, "ra": ra}
        septal = -(lv.rim_radius_cm + lv.wall_cm)
        free_wall = rv.center_cm[0] - rv.rim_radius_cm
        # The fibrous ring narrows a third as much as the muscle that it holds.
        ring = (2.0 * self._lv_relaxed.rim_radius_cm + lv.rim_radius_cm) / 3.0
        mitral = Valve((-ring, ring), lv.plane_cm, opening)
        return Anatomy(seconds, chambers, mitral, Valve((septal, free_wall), rv.plane_cm, opening))

    @cached_property
    def _lv_relaxed(self) -> Chamber:
        return _stand(self._lv_cavity(0.0), self.lv_wall_cm)

    @cached_property
    def _lv_muscle_ml(self) -> float:
        relaxed = self._lv_relaxed
        return float(relaxed.volume_ml(relaxed.wall_cm) - relaxed.volume_ml())

    def _lv_cavity(self, emptying: float) -> Chamber:
        """The left ventricle's cavity, still without a wall."""
        volume_ml = self.edv_ml * (1.0 - 0.01 * self.ejection_fraction * emptying)
        length = self.lv_length_cm * (1.0 - self.shortening * emptying)
        unit = Chamber(0.0, 1, length, _LV_TRUNCATION, (1.0, 1.0), (0.0, 0.0), 0.0)
        radius = float(np.sqrt(volume_ml / unit.volume_ml()))
        return replace(unit, radius_cm=(radius, radius))

    def _lv(self, emptying: float) -> Chamber:
        cavity = self._lv_cavity(emptying)
        return _stand(cavity, wall_for_muscle(cavity, self._lv_muscle_ml))

    def _rv(self, emptying: float, excursion_cm: float) -> Chamber:
        """An ellipsoid wrapped around the septum; what lies inside of the left one is cut away."""
        relaxed = self._lv_relaxed
        vigour = emptying * min(self.ejection_fraction / 60.0, 1.0)
        septum = relaxed.radius_cm[0] + relaxed.wall_cm
        tip = 0.2 * self.lv_length_cm
        # The right base travels farther than the left one (TAPSE against MAPSE).
        plane = relaxed.plane_cm - _TRICUSPID_SHIFT_CM - 1.25 * excursion_cm
        return Chamber(
            tip_cm=tip,
            direction=1,
            length_cm=plane - tip,
            truncation=_RV_TRUNCATION,
            radius_cm=(
                (0.35 * septum + self.rv_width_cm) * (1.0 - 0.2 * vigour),
                (septum + 0.15) * (1.0 - 0.1 * vigour),
            ),
            center_cm=(-0.65 * septum, -0.15 * septum),
            wall_cm=_RV_WALL_CM * (1.0 + 0.3 * vigour),
        )

    def _atria(
        self, emptying: float, mitral_cm: float, tricuspid_cm: float
    ) -> tuple[Chamber, Chamber]:
        """The atria: their far walls stay, so they stretch as the valves are drawn to the apex."""
        rim_share = np.sqrt(1.0 - _ATRIAL_TRUNCATION**2)
        radius = float(0.95 * self._lv_relaxed.rim_radius_cm / rim_share)
        back = self._lv_relaxed.plane_cm + self.atrial_length_cm
        swollen = radius * (0.92 + 0.1 * emptying)

        def atrium(tip: float, plane: float, center_x: float, size: float) -> Chamber:
            radii, center = (size * swollen, size * swollen), (center_x, 0.0)
            return Chamber(tip, -1, tip - plane, _ATRIAL_TRUNCATION, radii, center, _ATRIAL_WALL_CM)

        right_center = -(1.9 * radius + 1.5 * _ATRIAL_WALL_CM)
        left = atrium(back, mitral_cm, 0.0, 1.0)
        return left, atrium(back - 0.4, tricuspid_cm, right_center, 0.9)


def _stand(cavity: Chamber, wall_cm: float) -> Chamber:
    """Give a ventricle its wall and put its outer tip at z = 0, where the pericardium holds it."""
    return replace(cavity, tip_cm=TIP_THINNING * wall_cm, wall_cm=wall_cm)


def draw_heart(rng: np.random.Generator) -> Heart:
    """Draw a patient. Failing hearts are larger and rounder; the rate is log-uniform."""
    ejection_fraction = rng.uniform(*EJECTION_FRACTION_RANGE)
    heart_rate = float(np.exp(rng.uniform(*np.log(HEART_RATE_RANGE))))
    expected_ml = 110.0 + 1.6 * (60.0 - ejection_fraction)
    edv_ml = float(np.clip(expected_ml * np.exp(rng.normal(0.0, 0.2)), 55.0, 300.0))
    failure = (75.0 - ejection_fraction) / 60.0
    length = 8.9 * (edv_ml / 120.0) ** (1.0 / 3.0) * (1.0 - 0.06 * failure)
    return Heart(
        edv_ml=edv_ml,
        ejection_fraction=ejection_fraction,
        cycle=Cycle(heart_rate, early_share=rng.uniform(0.55, 0.8)),
        lv_length_cm=length * rng.uniform(0.95, 1.05),
        lv_wall_cm=rng.uniform(0.8, 1.2),
        shortening=0.0025 * ejection_fraction * rng.uniform(0.85, 1.15),
        rv_width_cm=rng.uniform(2.0, 3.0),
        atrial_length_cm=rng.uniform(4.0, 5.2),
    )
