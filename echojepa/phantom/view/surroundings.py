"""What lies around and inside of the heart: chest wall or liver, haze, lung and fat, blood."""

from __future__ import annotations

import numpy as np

from echojepa.phantom.anatomy.heart import Heart
from echojepa.phantom.view.plane import Plane
from echojepa.phantom.view.tissue import (
    BLOOD_PACE,
    STILL_PACE,
    Field,
    Tissue,
    draw_field,
    even_numbers,
    patches,
)

WIDEST_RAD = 0.82
"""Scatterers fill this half-angle, a little more than the widest sector shows."""

_BLOOD_LEVEL = 0.035


def draw_surroundings(
    heart: Heart,
    plane: Plane,
    depth_cm: float,
    near: tuple[str, float, float],
    rng: np.random.Generator,
) -> list[Tissue]:
    """Everything that isn't the heart itself, for a sector of a given depth.

    `near` is the window (`subcostal` looks through the liver), the thickness of what lies before
    the heart (cm) and the strength of the near-field haze (1 is usual).
    """
    window, chest_cm, haze = near
    first = _liver if window == "subcostal" else _chest
    return [
        first(heart, plane, chest_cm, rng),
        _haze(haze, depth_cm, rng),
        _around(heart, plane, chest_cm, depth_cm, rng),
        _blood(depth_cm, rng),
    ]


def _chest(heart: Heart, plane: Plane, chest_cm: float, rng: np.random.Generator) -> Field:
    """Layers of skin, fat and muscle right under the probe."""
    points, area = fan_points(0.2, chest_cm + 0.8, 2000, rng)
    radius = np.linalg.norm(points, axis=1)
    layers = 1.0 + 0.5 * np.cos(2.0 * np.pi * radius / rng.uniform(0.5, 0.9))
    level = 1.1 * layers / (1.0 + np.exp((radius - chest_cm + 0.3) / 0.25))
    return draw_field(heart, plane, points, level * patches(points, 1.5, rng) * np.sqrt(area))


def _liver(heart: Heart, plane: Plane, chest_cm: float, rng: np.random.Generator) -> Field:
    """A thin abdominal wall, then even grey liver with dark vessels, down to the diaphragm."""
    points, area = fan_points(0.2, chest_cm + 1.0, 4500, rng)
    radius = np.linalg.norm(points, axis=1)
    level = 0.55 + 0.8 * np.exp(-(((radius - 0.6) / 0.4) ** 2))
    for _ in range(int(rng.integers(2, 5))):
        center = np.array([rng.uniform(-2.5, 2.5), rng.uniform(1.5, max(chest_cm - 0.5, 1.6))])
        across = np.linalg.norm((points - center) / rng.uniform(0.15, 0.5, 2), axis=1)
        level = level * np.clip(across - 0.6, 0.08, 1.0)
    level = level / (1.0 + np.exp((radius - chest_cm - 0.4) / 0.2))
    return draw_field(heart, plane, points, level * patches(points, 3.0, rng) * np.sqrt(area))


def _haze(strength: float, depth_cm: float, rng: np.random.Generator) -> Field:
    """Reverberation between probe and ribs: still clutter that lies over the near heart."""
    end_cm = 0.45 * depth_cm
    points, area = fan_points(0.06 * depth_cm, end_cm, 1500, rng)
    fall = np.exp(-(np.linalg.norm(points, axis=1) - 0.06 * depth_cm) / (0.13 * depth_cm))
    return Field(points, 0.16 * strength * fall * np.sqrt(area), STILL_PACE)


def _around(
    heart: Heart, plane: Plane, chest_cm: float, depth_cm: float, rng: np.random.Generator
) -> Field:
    """Fat and mediastinum close to the heart, brighter behind it; dim lung farther off."""
    points, area = fan_points(max(chest_cm - 0.6, 0.3), depth_cm, 9000, rng)
    distance = np.maximum(heart.rest.distance_cm(plane.to_heart(points, 0.0)), 0.0)
    behind = np.clip(points[:, 1] / depth_cm, 0.0, 1.0) ** 2
    level = 0.04 + (0.12 + 0.6 * behind) * np.exp(-distance / 0.9)
    return draw_field(heart, plane, points, level * patches(points, 3.0, rng) ** 2 * np.sqrt(area))


def _blood(depth_cm: float, rng: np.random.Generator) -> Field:
    """Blood; so weak that it need not be cut out where there is tissue."""
    points, area = fan_points(1.0, depth_cm, 3000, rng)
    return Field(points, _BLOOD_LEVEL * np.sqrt(area), BLOOD_PACE)


def fan_points(
    start_cm: float, end_cm: float, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Points [count, 2] over a ring sector and the area of each [count].

    They are even in range and angle, as resolution cells are: denser towards the probe.
    """
    lots = even_numbers(count, 2, rng)
    radius = start_cm + (end_cm - start_cm) * lots[:, 0]
    angle = WIDEST_RAD * (2.0 * lots[:, 1] - 1.0)
    points = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)
    return points, radius * (end_cm - start_cm) * 2.0 * WIDEST_RAD / count
