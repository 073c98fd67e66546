"""One clip: draw its patient, probe position and machine, and render its frames.

    clip = render_clip(PhantomConfig(num_studies=1), study=0, view="A4C")

gives `clip.frames`, `clip.labels["lvef"]` and, for every frame, `clip.lv_cavity()`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from echojepa.phantom.anatomy.cycle import Rhythm, draw_rhythm
from echojepa.phantom.anatomy.heart import Heart
from echojepa.phantom.anatomy.patient import Patient, draw_patient
from echojepa.phantom.anatomy.populations import POPULATIONS
from echojepa.phantom.config import PhantomConfig
from echojepa.phantom.files.identity import draw_identity
from echojepa.phantom.machine.doppler import ColourBox
from echojepa.phantom.machine.overlay import burn_in
from echojepa.phantom.machine.scan import Scanner
from echojepa.phantom.machine.speckle import Amplitudes
from echojepa.phantom.machine.vendors import VENDORS, Knobs, draw_knobs
from echojepa.phantom.view.scene import Scene, draw_scene
from echojepa.phantom.view.views import VIEWS, draw_plane

_STUDIES_TOGETHER = 4
"""A patient's studies lie within one such group of study numbers."""


@dataclass(frozen=True)
class Clip:
    """A rendered clip and the truth about it."""

    frames: np.ndarray
    """uint8 [num_frames, size, size], or [num_frames, size, size, 3] (RGB) with colour Doppler."""
    native_fps: float
    seconds: np.ndarray
    """Time of each frame [num_frames] since an R wave (the clip may start before it)."""
    patient: Patient
    scene: Scene
    scanner: Scanner
    colour_corners: tuple[int, int, int, int] | None
    """Of the colour Doppler box, if there is one: first column and row, last column and row."""

    @property
    def labels(self) -> dict[str, float]:
        """See `Heart.labels`."""
        return self.patient.heart.labels

    def lv_cavity(self) -> np.ndarray:
        """bool [num_frames, size, size]: pixels whose centre is in the left ventricle's cavity."""
        pixels = self.scanner.pixel_points()
        inside = []
        for now in self.seconds:
            moment = self.scene.moment(now)
            lv = moment.anatomy.chambers["lv"]
            inside.append(lv.distance_cm(moment.to_heart(pixels), 0.0) < 0.0)
        return np.stack(inside).reshape(self.frames.shape[:3])


def patient_number(config: PhantomConfig, study: int) -> tuple[int, int]:
    """Whose study this is: the patient's first study, and how many came between (0: it is it)."""
    first = study
    while first % _STUDIES_TOGETHER:
        lot = np.random.default_rng([config.seed, 3, first]).random()
        if lot >= config.follow_up_fraction:
            break
        first -= 1
    return first, study - first


def study_date(config: PhantomConfig, study: int) -> date:
    """When a study was made; a patient's studies follow each other."""
    first, follow_up = patient_number(config, study)
    rng = np.random.default_rng([config.seed, 7, first])
    gaps = rng.integers(30, 400, _STUDIES_TOGETHER)
    days = int(rng.integers(0, 3650)) + int(gaps[:follow_up].sum())
    return date(2180, 1, 1) + timedelta(days=days)


def study_patient(config: PhantomConfig, study: int) -> Patient:
    """The patient of a study, as they were at its time."""
    return draw_patient(config, *patient_number(config, study))


@dataclass(frozen=True)
class Setup:
    """What is settled about a clip before the first pulse, but for where the heart is."""

    patient: Patient
    knobs: Knobs
    seconds: np.ndarray
    """Time of each frame [num_frames] since an R wave."""
    rhythm: Rhythm
    rng: np.random.Generator
    """For all that follows."""


def draw_setup(config: PhantomConfig, study: int, view: str, take: int = 0) -> Setup:
    """Draw a clip's patient, machine and times; a pure function of its arguments."""
    patient = study_patient(config, study)
    population, heart = POPULATIONS[patient.population], patient.heart
    rng = np.random.default_rng([config.seed, 0, study, list(VIEWS).index(view), take])
    vendor = VENDORS[patient.vendor]
    knobs = draw_knobs(vendor, population, heart.size, config.native_fps, rng)
    seconds = _frame_times(heart, config.num_frames, knobs.native_fps, rng)
    # The trace of the electrocardiogram shows what went before.
    rhythm = draw_rhythm(heart.cycle, heart.variability, (seconds[0] - 3.5, seconds[-1]), rng)
    return Setup(patient, knobs, seconds, rhythm, rng)


def render_clip(config: PhantomConfig, study: int, view: str, take: int = 0) -> Clip:
    """Render one clip; a pure function of its arguments."""
    setup = draw_setup(config, study, view, take)
    patient, knobs, rng, seconds = setup.patient, setup.knobs, setup.rng, setup.seconds
    plane = draw_plane(view, patient.heart, POPULATIONS[patient.population].chest, rng)
    scene = draw_scene(patient, setup.rhythm, plane, view, knobs.depth_cm, rng)
    scanner = Scanner(knobs, config.size, config.electronic_noise, config.speckle_contrast)
    frames = _film(scene, scanner, seconds, config.decorrelation_seconds, rng)
    corners = None
    if rng.random() < config.colour_fraction:
        box = ColourBox(scene, scanner, rng)
        corners = box.corners
        frames = np.stack([box.paint(f, now) for f, now in zip(frames, seconds, strict=True)])
    if config.overlays:
        who = draw_identity(config.seed, patient_number(config, study)[0])
        banner = who.banner if config.planted_identities else None
        burn_in(frames, knobs, setup.rhythm, seconds, banner)
    return Clip(frames, knobs.native_fps, seconds, patient, scene, scanner, corners)


def _film(
    scene: Scene,
    scanner: Scanner,
    seconds: np.ndarray,
    decorrelation_seconds: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Grey frames uint8 [T, size, size] at times [T]."""
    amplitudes = Amplitudes(scene.level, scene.pace, decorrelation_seconds, rng)
    frames = []
    for before, now in zip([seconds[0], *seconds[:-1]], seconds, strict=True):
        amplitudes.step(now - before)
        points, sensitivity = scene.positions(now)
        seen = sensitivity > 0.0
        frames.append(scanner.frame(points[seen], (sensitivity * amplitudes.values)[seen], rng))
    return np.stack(frames)


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
