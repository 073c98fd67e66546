"""One heart in one view: all of its scatterers, and where they are at any time."""

from __future__ import annotations

import numpy as np

from echojepa.phantom.anatomy.cycle import Rhythm
from echojepa.phantom.anatomy.heart import Heart
from echojepa.phantom.anatomy.patient import Patient
from echojepa.phantom.anatomy.populations import POPULATIONS
from echojepa.phantom.view.inserts import draw_inserts
from echojepa.phantom.view.plane import Plane
from echojepa.phantom.view.surroundings import draw_surroundings
from echojepa.phantom.view.tissue import ELEVATION_CM, REACH_CM, WALLS, Moment, Tissue, Wall
from echojepa.phantom.view.views import VIEWS, nearest_cm


class Scene:
    """A heart, its rhythm and a probe over it."""

    def __init__(self, heart: Heart, rhythm: Rhythm, plane: Plane, tissues: list[Tissue]) -> None:
        self.heart, self.rhythm, self.plane = heart, rhythm, plane
        self._tissues = tissues
        self.level = np.concatenate([tissue.level for tissue in tissues])
        """Amplitudes [n]."""
        self.pace = np.concatenate([np.full(len(t.level), t.pace) for t in tissues])
        """Rates of decorrelation [n] relative to muscle."""

    def moment(self, seconds: float) -> Moment:
        """The heart at a time, seen from the probe."""
        return Moment(self.heart.at(self.rhythm.phase(seconds)), self.plane, seconds)

    def positions(self, seconds: float) -> tuple[np.ndarray, np.ndarray]:
        """Image points float32 [n, 2] and the beam's sensitivity [n] there (0 where covered)."""
        moment = self.moment(seconds)
        points = np.concatenate([tissue.positions(moment) for tissue in self._tissues])
        points = points.astype(np.float32)
        away = points[:, 2] / np.float32(ELEVATION_CM)
        seen = np.abs(points[:, 2]) < REACH_CM  # NaN compares false
        return points[:, :2], np.where(seen, np.exp(-0.5 * away**2), np.float32(0.0))


def draw_scene(
    patient: Patient,
    rhythm: Rhythm,
    plane: Plane,
    view: str,
    depth_cm: float,
    rng: np.random.Generator,
) -> Scene:
    """Draw all scatterers that a sector of a given depth may meet."""
    heart = patient.heart
    tissues: list[Tissue] = [Wall(look, heart, plane, rng) for look in WALLS]
    tissues += draw_inserts(heart, plane, rng)
    chest_cm = max(nearest_cm(heart, plane) - 0.3, 0.6)
    near = (VIEWS[view].window, chest_cm, POPULATIONS[patient.population].haze)
    tissues += draw_surroundings(heart, plane, depth_cm, near, rng)
    return Scene(heart, rhythm, plane, tissues)
