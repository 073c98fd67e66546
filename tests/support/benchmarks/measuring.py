"""What the pressure of the right ventricle is judged by: measured, and an encoder that learns to.

In short axis it is the left ventricle's eccentricity, its short diameter over its long one; in
four-chamber views the right ventricle's width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from support.benchmarks.readers import Reader, Shown, to_floats, train_reader
from support.truth import Filmed

from echojepa.data.sampling import ClipConfig
from echojepa.encoders.custom import CustomSource
from echojepa.encoders.frozen import TokenFeatures
from echojepa.models.attention import Grid
from echojepa.models.formats.files import read_tensors
from echojepa.models.weights import save_tensors

CLIP = ClipConfig(num_frames=8, fps=6.25, size=64)


_GRID_CM = np.stack(
    np.meshgrid(np.arange(-8.0, 8.0, 0.4), np.arange(0.0, 18.0, 0.4)), axis=-1
).reshape(-1, 2)
"""Image points: lateral, depth."""
POINT_CM2 = 0.4**2
"""Area that each of them stands for."""


def cut(clip: Filmed, frame: int, chamber: Literal["lv", "rv"]) -> NDArray[np.float64]:
    """Image points [n, 2] of a grid that lie in a ventricle's cavity."""
    points = clip.plane.to_heart(_GRID_CM, clip.setup.seconds[frame])
    chambers = clip.anatomy(frame).chambers
    found = np.flatnonzero(chambers[chamber].distance_cm(points, 0.0) < 0.0)
    if chamber == "rv":  # wrapped around the left one
        found = found[chambers["lv"].distance_cm(points[found], 1.0) > 0.0]
    return _GRID_CM[found]


def sign(clip: Filmed, frame: int) -> float:
    """Eccentricity or width, both so that it is from 0 to 1 in most clips."""
    short_axis = clip.view.startswith("PSAX")
    spread = np.cov(cut(clip, frame, "lv" if short_axis else "rv").T)
    least, most = np.sqrt(np.linalg.eigvalsh(spread))
    # A diameter of an ellipse is four deviations of its points.
    return float((least / most - 0.75) / 0.25 if short_axis else (4.0 * least - 1.5) / 3.0)


class MeasuringEncoder:
    """A `FrozenEncoder`: what the reader's convolutions give, a token for each of 4 x 4 places."""

    clip = CLIP

    def __init__(self, weights: str) -> None:
        self._reader = Reader(1).eval().requires_grad_(False)
        self._reader.load_state_dict(read_tensors(Path(weights)))

    def encode(self, clips: NDArray[np.uint8]) -> TokenFeatures:
        """Tokens of clips [B, T, H, W, 3]."""
        seen = self._reader.body(to_floats(clips[..., 1])[:, None])  # [B, D, T, H, W]
        return TokenFeatures(seen.flatten(2).transpose(1, 2), Grid(*seen.shape[2:]))


class Measured(NamedTuple):
    """Clips to learn from."""

    pixels: NDArray[np.uint8]
    """[N, T, H, W]."""
    signs: NDArray[np.float64]
    """Means over their frames, [N]."""
    views: NDArray[np.str_]
    """[N]."""


def teach(clips: Measured, weights: Path, num_epochs: int) -> None:
    """Train a reader and write its weights.

    Signs are standardised among clips of the same view: else views would differ more than patients.
    """
    scaled = np.empty(len(clips.signs), np.float32)
    for view in np.unique(clips.views):
        here = clips.views == view
        scaled[here] = (clips.signs[here] - clips.signs[here].mean()) / clips.signs[here].std()
    reader = train_reader(Shown(clips.pixels, scaled), None, num_epochs)
    save_tensors(reader.state_dict(), weights, {"format": "pt"})


def taught(weights: Path) -> CustomSource:
    """The encoder with these weights."""
    factory = f"{__name__}:{MeasuringEncoder.__name__}"
    return CustomSource(factory=factory, settings={"weights": str(weights)})
