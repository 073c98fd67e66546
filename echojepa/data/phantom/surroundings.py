"""What lies around and inside of the heart: chest wall, near-field haze, lung and fat, blood."""

from __future__ import annotations

import numpy as np

from echojepa.data.phantom.tissue import (
    BLOOD_PACE,
    STILL_PACE,
    Field,
    Moment,
    Tissue,
    patches,
)

WIDEST_RAD = 0.85
"""Scatterers fill this half-angle, a little more than the widest sector shows."""

_BLOOD_LEVEL = 0.035
_CHEST_CM = 2.0
"""Skin, fat and muscle between the probe and the heart."""
_EXCURSION_CM = 1.5
"""More than any border of the heart moves: what lies deeper inside at rest is never laid bare."""


def draw_surroundings(rest: Moment, depth_cm: float, rng: np.random.Generator) -> list[Tissue]:
    """Everything that isn't heart muscle, for a sector of a given depth."""
    return [_chest(rng), _haze(rng), _around(rest, depth_cm, rng), _blood(depth_cm, rng)]


def _chest(rng: np.random.Generator) -> Field:
    """Layers of skin, fat and muscle right under the probe."""
    points, area = _fan_points(0.2, _CHEST_CM + 0.8, 2000, rng)
    radius = np.linalg.norm(points, axis=1)
    layers = 1.0 + 0.5 * np.cos(2.0 * np.pi * radius / rng.uniform(0.5, 0.9))
    level = 1.1 * layers / (1.0 + np.exp((radius - _CHEST_CM + 0.3) / 0.25))
    level = level * patches(points, 1.5, rng) * np.sqrt(area)
    return Field(points, level, STILL_PACE, under_heart=True)


def _haze(rng: np.random.Generator) -> Field:
    """Reverberation between probe and ribs: still clutter that lies over the near heart."""
    points, area = _fan_points(1.0, 7.0, 1500, rng)
    level = 0.16 * np.exp(-(np.linalg.norm(points, axis=1) - 1.0) / 2.0) * np.sqrt(area)
    return Field(points, level, STILL_PACE, under_heart=False)


def _around(rest: Moment, depth_cm: float, rng: np.random.Generator) -> Field:
    """Fat and mediastinum close to the heart, brighter behind it; dim lung farther off."""
    points, area = _fan_points(_CHEST_CM - 0.6, depth_cm, 9000, rng)
    distance = rest.distance_cm(points, list(rest.cuts), 1.0)
    bared = distance > -_EXCURSION_CM
    points, distance, area = points[bared], np.maximum(distance[bared], 0.0), area[bared]
    behind = np.clip(points[:, 1] / depth_cm, 0.0, 1.0) ** 2
    level = 0.04 + (0.12 + 0.6 * behind) * np.exp(-distance / 0.9)
    level = level * patches(points, 3.0, rng) ** 2 * np.sqrt(area)
    return Field(points, level, STILL_PACE, under_heart=True)


def _blood(depth_cm: float, rng: np.random.Generator) -> Field:
    """Blood; so weak that it need not be cut out where there is tissue."""
    points, area = _fan_points(1.0, depth_cm, 3000, rng)
    return Field(points, _BLOOD_LEVEL * np.sqrt(area), BLOOD_PACE, under_heart=False)


def _fan_points(
    start_cm: float, end_cm: float, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Points [count, 2] over a ring sector and the area of each [count].

    They are even in range and angle, as resolution cells are: denser towards the probe.
    """
    radius = rng.uniform(start_cm, end_cm, count)
    angle = rng.uniform(-WIDEST_RAD, WIDEST_RAD, count)
    points = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)
    return points, radius * (end_cm - start_cm) * 2.0 * WIDEST_RAD / count
