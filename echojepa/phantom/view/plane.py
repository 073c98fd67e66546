"""The image plane: where the probe stands in the heart's frame and how it is held."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

_DRIFT = np.array([0.4, 1.0, 0.4])
"""Of the heart under the probe as the patient breathes: lateral, depth, elevation."""


@dataclass(frozen=True)
class Plane:
    """An image plane through the probe, riding on the breath.

    Image points are (lateral, depth) or, with the distance from the plane, (lateral, depth,
    elevation), in centimetres with the probe at the origin.
    """

    probe_cm: np.ndarray
    """Position of the probe [3] in the heart's frame."""
    axes: np.ndarray
    """Rotation [3, 3]: rows are lateral, depth and elevation in the heart's frame."""
    breath_cm: float = 0.0
    """Amplitude of the drift in depth; sideways and across the plane it is smaller."""
    breath_seconds: float = 4.0

    @classmethod
    def aimed(cls, at_cm: np.ndarray, depth: np.ndarray, lateral: np.ndarray) -> Plane:
        """A plane whose middle beam runs along `depth` through `at_cm`, where its probe stands.

        `lateral` need only point roughly to the right of the image.
        """
        depth = depth / np.linalg.norm(depth)
        lateral = lateral - (lateral @ depth) * depth
        lateral = lateral / np.linalg.norm(lateral)
        return cls(at_cm, np.stack([lateral, depth, np.cross(lateral, depth)]))

    def moved(self, along_cm: float) -> Plane:
        """The plane with its probe pushed along the middle beam."""
        return Plane(
            self.probe_cm + along_cm * self.axes[1], self.axes, self.breath_cm, self.breath_seconds
        )

    def turned(self, rotation: float, tilt: float, rock: float) -> Plane:
        """The plane turned about its probe, angles in radians.

        `rotation` is about the middle beam, `tilt` sweeps the plane across itself, `rock` moves the
        middle beam within the plane.
        """
        turn = Rotation.from_euler("YXZ", [rotation, tilt, rock]).as_matrix()
        return Plane(self.probe_cm, turn @ self.axes, self.breath_cm, self.breath_seconds)

    def to_image(self, points: np.ndarray, seconds: float) -> np.ndarray:
        """Heart coordinates [n, 3] to image points with elevation [n, 3]."""
        return np.asarray((points - self.probe_cm) @ self.axes.T + self._drift(seconds))

    def to_heart(self, points: np.ndarray, seconds: float) -> np.ndarray:
        """Image points [n, 2] to heart coordinates [n, 3]."""
        lifted = np.concatenate([points, np.zeros((len(points), 1))], axis=1)
        return np.asarray((lifted - self._drift(seconds)) @ self.axes + self.probe_cm)

    @property
    def drift_cm(self) -> np.ndarray:
        """Farthest [3] that the heart drifts from where it is at second 0."""
        return self.breath_cm * _DRIFT

    def _drift(self, seconds: float) -> np.ndarray:
        return np.asarray(np.sin(2.0 * np.pi * seconds / self.breath_seconds) * self.drift_cm)
