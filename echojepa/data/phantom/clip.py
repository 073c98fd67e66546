"""One clip: draw its patient, probe position and machine, and render its frames.

    clip = render_clip(PhantomConfig(num_studies=1), study=0, view="A4C")

gives `clip.frames`, `clip.labels["lvef"]` and, for every frame, `clip.lv_cavity()`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from echojepa.data.phantom.config import PhantomConfig
from echojepa.data.phantom.heart import Heart, draw_heart
from echojepa.data.phantom.scan import Scanner, draw_knobs
from echojepa.data.phantom.speckle import Amplitudes
from echojepa.data.phantom.views import VIEWS, Scene


@dataclass(frozen=True)
class Clip:
    """A rendered clip and the truth about it."""

    frames: np.ndarray
    """uint8 [num_frames, size, size]."""
    native_fps: float
    seconds: np.ndarray
    """Time of each frame [num_frames] since the R wave of the first beat (it may start before)."""
    heart: Heart
    scene: Scene
    scanner: Scanner

    @property
    def labels(self) -> dict[str, float]:
        """See `Heart.labels`."""
        return self.heart.labels

    def lv_cavity(self) -> np.ndarray:
        """bool [num_frames, size, size]: pixels whose centre is in the left ventricle's cavity."""
        pixels = self.scanner.pixel_points()
        moments = [self.scene.moment(now) for now in self.seconds]
        inside = [moment.distance_cm(pixels, ["lv"], 0.0) < 0.0 for moment in moments]
        return np.stack(inside).reshape(self.frames.shape)


def patient(config: PhantomConfig, study: int) -> Heart:
    """The heart of one study."""
    return draw_heart(np.random.default_rng([config.seed, study]))


def render_clip(config: PhantomConfig, study: int, view: str, take: int = 0) -> Clip:
    """Render one clip; a pure function of its arguments."""
    heart = patient(config, study)
    rng = np.random.default_rng([config.seed, study, 1 + list(VIEWS).index(view), take])
    native_fps = float(rng.choice(config.native_fps))
    seconds = _frame_times(heart, config.num_frames, native_fps, rng)
    scene = Scene(heart, view, rng)
    scanner = Scanner(draw_knobs(rng), scene.depth_cm, config.size, config.electronic_noise)
    amplitudes = Amplitudes(scene.level, scene.pace, config.decorrelation_seconds, rng)
    frames = np.empty((config.num_frames, config.size, config.size), np.uint8)
    slip = scene.slip_cm(seconds[0])
    for index, now in enumerate(seconds):
        before, slip = slip, scene.slip_cm(now)
        if index:
            amplitudes.step(1.0 / native_fps, slip - before)
        frames[index] = scanner.frame(scene.place(now), amplitudes.values, rng)
    return Clip(frames, native_fps, seconds, heart, scene, scanner)


def _frame_times(
    heart: Heart, num_frames: int, native_fps: float, rng: np.random.Generator
) -> np.ndarray:
    """Seconds [num_frames] since an R wave.

    A clip starts anywhere in the beat if it is long; a short one starts so late before an R wave
    that it still shows end-diastole and end-systole, or at the R wave.
    """
    cycle = heart.cycle
    spare = num_frames / native_fps - cycle.systole_seconds
    start = -rng.uniform(0.0, min(cycle.beat_seconds, max(spare, 0.0)))
    return np.asarray(start + np.arange(num_frames) / native_fps)
