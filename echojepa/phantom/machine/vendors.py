"""Synthetic machines: five vendors whose pictures differ as real vendors' do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from echojepa.phantom.anatomy.populations import Population

VendorName = Literal["aster", "boreal", "cygnus", "dorado", "elara"]


@dataclass(frozen=True)
class Vendor:
    """What all machines of a vendor have in common; pairs are ranges of single machines."""

    megahertz: tuple[float, float]
    """Of the pulse for a usual adult (second harmonics are received at twice this)."""
    num_beams: int
    native_fps: tuple[float, ...]
    half_angle_deg: tuple[float, float]
    dynamic_range_db: tuple[float, float]
    gamma: tuple[float, float]
    """Of the grey map: above 1 darkens the middle."""
    knee: float
    """How S-shaped the grey map is besides: 0 is not at all."""
    smoothing_cm: tuple[float, float]
    """Speckle reduction after compression: standard deviation in range."""
    persistence: tuple[float, float]
    """Share of the last shown frame that stays in the next."""
    focus: float
    """Depth of the transmit focus as a share of the depth."""
    side_lobe: float
    """Height of the side lobes' floor relative to the main lobe."""
    margin: tuple[float, float, float]
    """Free above the sector, below it, and its shift to the right, as shares of the frame."""
    logo: str
    text_corner: Literal["left", "right"]


VENDORS: dict[str, Vendor] = {
    "aster": Vendor(
        (1.9, 2.1), 96, (25.0, 30.0, 40.0, 50.0), (37.5, 45.0), (48.0, 56.0), (1.1, 1.4), 0.0,
        (0.05, 0.1), (0.0, 0.2), 0.45, 0.02, (0.01, 0.01, 0.0), "ASTER", "left",
    ),
    "boreal": Vendor(
        (2.2, 2.6), 112, (30.0, 45.0, 60.0), (36.0, 42.0), (54.0, 64.0), (1.2, 1.6), 0.25,
        (0.03, 0.06), (0.1, 0.35), 0.55, 0.012, (0.04, 0.08, 0.0), "Boreal", "right",
    ),
    "cygnus": Vendor(
        (1.6, 1.9), 80, (20.0, 25.0, 33.0), (40.0, 45.0), (42.0, 50.0), (1.0, 1.25), 0.1,
        (0.07, 0.13), (0.2, 0.45), 0.4, 0.035, (0.02, 0.1, -0.02), "CYGNUS", "left",
    ),
    "dorado": Vendor(
        (2.4, 3.0), 128, (48.0, 60.0, 80.0), (34.0, 40.0), (50.0, 60.0), (1.15, 1.45), 0.4,
        (0.025, 0.05), (0.0, 0.15), 0.5, 0.015, (0.06, 0.05, 0.03), "dorado", "right",
    ),
    "elara": Vendor(
        (2.0, 2.4), 104, (23.0, 37.0, 55.0), (38.0, 44.0), (46.0, 54.0), (0.95, 1.2), 0.55,
        (0.04, 0.12), (0.15, 0.5), 0.35, 0.045, (0.03, 0.04, 0.02), "Elara", "left",
    ),
}  # fmt: skip
"""By the name that the manifest's column `vendor` holds."""
assert tuple(VENDORS) == get_args(VendorName)


@dataclass(frozen=True)
class Knobs:
    """One machine's settings and one patient's acoustic window, for one clip."""

    vendor: Vendor
    wavelength_cm: float
    native_fps: float
    depth_cm: float
    half_angle_rad: float
    axial_cm: float
    """Standard deviation of the pulse."""
    lateral_rad: float
    """Standard deviation of the beam at its focus."""
    dynamic_range_db: float
    gain_db: float
    gamma: float
    smoothing_cm: float
    persistence: float
    attenuation_db_per_cm: float
    """Round trip."""
    tilt_db_per_cm: float
    """What the time-gain compensation is off by."""
    window: tuple[float, float]
    """Where the left and right edge fade, as shares of the half-angle."""
    rib: tuple[float, float]
    """A rib's shadow: its direction as a share of the half-angle, and its depth from 0 to 1."""
    lung: tuple[float, float]
    """Lung that hides one side beyond a depth: its side's edge (share of the half-angle; above 1
    is none), and that depth as a share of the whole."""
    reverberation: float
    """Amplitude of the echo that went twice between the chest wall and the probe."""


def draw_knobs(
    vendor: Vendor,
    population: Population,
    size: float,
    native_fps: tuple[float, ...] | None,
    rng: np.random.Generator,
) -> Knobs:
    """Draw a machine and a window for a body's linear scale.

    Nothing here knows the view or the heart: depth, angle and layout say nothing about them.
    """
    wavelength = 0.154 / (population.megahertz * rng.uniform(*vendor.megahertz))
    has_rib, has_lung = rng.random() < 0.3, rng.random() < 0.15 * population.haze
    usual = 0.65 * 0.154 / wavelength
    attenuation = population.attenuation * usual
    return Knobs(
        vendor=vendor,
        wavelength_cm=wavelength,
        native_fps=float(rng.choice(native_fps or vendor.native_fps)),
        depth_cm=size * rng.uniform(15.0, 19.5) + 1.2 * (population.chest - 1.0),
        half_angle_rad=float(np.deg2rad(rng.uniform(*vendor.half_angle_deg))),
        axial_cm=wavelength * rng.uniform(0.75, 1.0),
        lateral_rad=wavelength * rng.uniform(0.21, 0.33),
        dynamic_range_db=rng.uniform(*vendor.dynamic_range_db),
        gain_db=rng.uniform(-3.0, 3.0),
        gamma=rng.uniform(*vendor.gamma),
        smoothing_cm=rng.uniform(*vendor.smoothing_cm),
        persistence=rng.uniform(*vendor.persistence),
        attenuation_db_per_cm=2.0 * attenuation,
        tilt_db_per_cm=rng.uniform(-0.35, 0.35) - 0.5 * (attenuation - usual),
        window=(rng.uniform(0.6, 1.1), rng.uniform(0.6, 1.1)),
        rib=(rng.uniform(-1.0, 1.0), rng.uniform(0.3, 0.8) if has_rib else 0.0),
        lung=(rng.uniform(0.45, 0.8) if has_lung else 2.0, rng.uniform(0.2, 0.5)),
        reverberation=rng.uniform(0.01, 0.05) * population.haze,
    )
