"""A colour Doppler box: the blood's speed along the beam, where there is blood."""

from __future__ import annotations

import cv2
import numpy as np

from echojepa.phantom.anatomy.heart import Anatomy, Valve
from echojepa.phantom.machine.scan import Scanner
from echojepa.phantom.view.scene import Scene
from echojepa.phantom.view.tissue import WALLS

_LEAST_CM_PER_S = 9.0
"""The wall filter: slower echoes count as tissue."""
_BESIDE = {
    "mitral": ("la", "lv"),
    "tricuspid": ("ra", "rv"),
    "aortic": ("lv", "aorta"),
    "pulmonary": ("rv", "rvot"),
}
"""The chambers through which a valve's stream runs."""


class ColourBox:
    """A box of the sector, and colours for what flows in it."""

    def __init__(self, scene: Scene, scanner: Scanner, rng: np.random.Generator) -> None:
        self._scene, self._rng = scene, rng
        self._nyquist = rng.uniform(45.0, 75.0)
        """Speed (cm/s) at which colours wrap around."""
        pixels = scanner.pixel_points()
        radius, angle = np.hypot(*pixels.T), np.arctan2(*pixels.T)
        depth, half = scanner.grid.depth_cm, scanner.grid.half_angle_rad
        start, middle = rng.uniform(0.15, 0.35) * depth, rng.uniform(-0.3, 0.3) * half
        inside = (radius > start) & (radius < start + 0.55 * depth)
        inside &= np.abs(angle - middle) < 0.5 * half
        self._cells = np.flatnonzero(inside & scanner.sector().ravel())
        self._points = pixels[self._cells]
        rows, columns = np.divmod(self._cells, scanner.sector().shape[1])
        self.corners = (
            int(columns.min()),
            int(rows.min()),
            int(columns.max()),
            int(rows.max()),
        )
        """First column and row, last column and row."""

    def paint(self, frame: np.ndarray, seconds: float) -> np.ndarray:
        """A grey frame uint8 [H, W] with its flow in colour: uint8 [H, W, 3], RGB."""
        colour = cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB)
        speed, blood = self._speed(seconds)
        # Echoes of moving blood are few: noise of a few cm/s, and the picture is patchy.
        speed += self._rng.normal(0.0, 5.0, speed.shape)
        shown = blood & (np.abs(speed) > _LEAST_CM_PER_S)
        wrapped = (speed[shown] / self._nyquist + 1.0) % 2.0 - 1.0
        strength, towards = np.sqrt(np.abs(wrapped)), wrapped > 0
        red = np.stack([255 * strength**0.5, 210 * strength**3, 20 * strength], axis=1)
        blue = np.stack([20 * strength, 200 * strength**3, 255 * strength**0.5], axis=1)
        flat = colour.reshape(-1, 3)
        flat[self._cells[shown]] = np.where(towards[:, None], red, blue).astype(np.uint8)
        return np.asarray(colour)

    def _speed(self, seconds: float) -> tuple[np.ndarray, np.ndarray]:
        """Towards the probe, cm/s, and whether there is blood: both [n cells]."""
        moment = self._scene.moment(seconds)
        points = moment.to_heart(self._points)
        heart, phase = self._scene.heart, self._scene.rhythm.phase(seconds)
        # Continuity: what the ventricle gains or loses passes a valve (ml/s over cm2).
        flow = 0.01 * heart.edv_ml * heart.ejection_fraction * phase.stroke_rate
        velocity = np.zeros_like(points)
        cavities = _cavities(points, moment.anatomy)
        for name, valve in moment.anatomy.valves.items():
            ejects = valve.towards > 0
            if (flow > 0.0) == ejects:
                beside = np.any([cavities[chamber] for chamber in _BESIDE[name]], axis=0)
                velocity[beside, 2] += _jet(points[beside], valve, flow)
        toward = points - moment.plane.probe_cm
        toward /= -np.maximum(np.linalg.norm(toward, axis=1, keepdims=True), 0.1)
        blood = np.any(list(cavities.values()), axis=0)
        return np.asarray((velocity * toward).sum(axis=1)), blood


def _cavities(points: np.ndarray, anatomy: Anatomy) -> dict[str, np.ndarray]:
    """Which points [n, 3] lie in a chamber's cavity, and not in a wall that cuts it away."""
    found = {}
    for look in WALLS:
        inside = anatomy.chambers[look.chamber].distance_cm(points, 0.0) < 0.0
        for cover, layer in look.covered_by.items():
            inside &= anatomy.chambers[cover].distance_cm(points, layer) > 0.0
        found[look.chamber] = inside
    return found


def _jet(points: np.ndarray, valve: Valve, flow_ml_per_s: float) -> np.ndarray:
    """Velocity along z (cm/s) [n] of the stream through a valve: a core that spreads downstream."""
    away = points - np.asarray(valve.center_cm)
    peak = flow_ml_per_s / (0.5 * np.pi * valve.radius_cm**2)
    beyond = valve.towards * away[:, 2]
    downstream, upstream = np.maximum(beyond, 0.0), np.maximum(-beyond, 0.0)
    width = valve.radius_cm * (0.7 + 0.12 * downstream + 0.3 * upstream)
    core = np.exp(-((np.hypot(away[:, 0], away[:, 1]) / width) ** 2))
    return np.asarray(peak * core * np.exp(-downstream / 5.0 - upstream / 1.5))
