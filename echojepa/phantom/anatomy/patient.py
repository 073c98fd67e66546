"""Drawing patients, from study to study."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from echojepa.phantom.anatomy.chamber import WallMotion
from echojepa.phantom.anatomy.cycle import Cycle
from echojepa.phantom.anatomy.heart import Heart
from echojepa.phantom.anatomy.populations import POPULATIONS, Population
from echojepa.phantom.config import PhantomConfig

EJECTION_FRACTION_RANGE = (15.0, 75.0)
"""Percent."""
TERRITORIES = {
    "anterior": (np.deg2rad(255.0), 0.3),
    "inferior": (np.deg2rad(100.0), 0.55),
    "lateral": (np.deg2rad(15.0), 0.55),
}
"""Where the three coronary arteries' muscle lies: angle and height of its centre."""
_MOST_WITH_A_SCAR = 52.0
"""Percent: a heart of which a part stands still does not eject more."""


@dataclass(frozen=True)
class Patient:
    """One patient at the time of one study."""

    heart: Heart
    population: str
    rhythm: str
    """`sinus` or `fibrillation`."""
    wall_motion: str
    """`normal`, or the territory that moves too little."""
    vendor: str


def draw_patient(config: PhantomConfig, patient: int, follow_up: int = 0) -> Patient:
    """The patient of this number at a follow-up study (0 is the first). A pure function."""
    rng = np.random.default_rng([config.seed, 1, patient])
    population = _choose(
        {"paediatric": config.paediatric_fraction, "obese": config.obese_fraction}, "adult", rng
    )
    rhythm = _choose({"fibrillation": config.fibrillation_fraction}, "sinus", rng)
    scarred = rng.random() < config.wall_motion_fraction
    territory = str(rng.choice(list(TERRITORIES))) if scarred else "normal"
    vendor = str(rng.choice(config.vendors))
    heart = _draw_heart(POPULATIONS[population], rhythm, territory, rng)
    if follow_up:
        heart = _later(heart, np.random.default_rng([config.seed, 2, patient, follow_up]))
    return Patient(heart, population, rhythm, territory, vendor)


def _choose(shares: dict[str, float], otherwise: str, rng: np.random.Generator) -> str:
    edges = np.cumsum(list(shares.values()))
    at = int(np.searchsorted(edges, rng.random(), side="right"))
    return [*shares, otherwise][at]


def _draw_heart(
    population: Population, rhythm: str, territory: str, rng: np.random.Generator
) -> Heart:
    """Hearts differ so much in size, shape and muscle that no single frame tells how they eject.

    Failing ones are a little larger.
    """
    motion = _scar(territory, rng)
    highest = EJECTION_FRACTION_RANGE[1] if motion is None else _MOST_WITH_A_SCAR
    fraction = rng.uniform(EJECTION_FRACTION_RANGE[0], highest)
    size = rng.uniform(*population.size)
    edv_ml = size**3 * 120.0 * (1.0 + 0.004 * (60.0 - fraction)) * np.exp(rng.normal(0.0, 0.45))
    edv_ml = float(np.clip(edv_ml, 50.0 * size**3, 260.0 * size**3))
    heart_rate = float(np.exp(rng.uniform(*np.log(population.heart_rate))))
    irregular = rhythm == "fibrillation"
    return Heart(
        size=size,
        edv_ml=edv_ml,
        ejection_fraction=fraction,
        cycle=Cycle(heart_rate, early_share=1.0 if irregular else rng.uniform(0.55, 0.8)),
        variability=rng.uniform(0.14, 0.24) if irregular else rng.uniform(0.01, 0.04),
        lv_length_cm=8.9 * (edv_ml / 120.0) ** (1.0 / 3.0) * rng.uniform(0.88, 1.12),
        lv_wall_cm=size * rng.uniform(0.6, 1.5),
        lv_taper=rng.uniform(-0.25, 0.25),
        shortening=0.0024 * fraction * rng.uniform(0.5, 1.5),
        twist_rad=float(np.deg2rad(rng.uniform(9.0, 16.0))),
        motion=motion,
        septal_flattening=0.4 * rng.beta(1.0, 1.6),
        rv_dilation=rng.beta(1.0, 1.6),
        tapse_cm=size * rng.uniform(0.9, 2.6),
        atrial_length_cm=size * rng.uniform(4.2, 5.6),
    )


def _scar(territory: str, rng: np.random.Generator) -> WallMotion | None:
    if territory == "normal":
        return None
    angle, height = TERRITORIES[territory]
    return WallMotion(float(angle), height, rng.uniform(0.7, 1.15))


def _later(heart: Heart, rng: np.random.Generator) -> Heart:
    """The same heart at a later study: another rate, and it has got better or worse."""
    highest = EJECTION_FRACTION_RANGE[1] if heart.motion is None else _MOST_WITH_A_SCAR
    fraction = _near(heart.ejection_fraction, 6.0, (EJECTION_FRACTION_RANGE[0], highest), rng)
    rate = _near(heart.cycle.heart_rate, 0.1 * heart.cycle.heart_rate, (45.0, 170.0), rng)
    return replace(
        heart,
        ejection_fraction=fraction,
        shortening=heart.shortening * fraction / heart.ejection_fraction,
        cycle=replace(heart.cycle, heart_rate=rate),
    )


def _near(
    before: float, deviation: float, limits: tuple[float, float], rng: np.random.Generator
) -> float:
    """A normal number around another one, drawn again until it lies within limits."""
    while True:
        after = float(rng.normal(before, deviation))
        if limits[0] <= after <= limits[1]:
            return after
