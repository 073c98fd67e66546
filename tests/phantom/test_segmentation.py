"""Labels against pictures: contours drawn on noise-free short-axis images give the same volumes."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.ndimage import maximum_filter1d

from echojepa.phantom import PhantomConfig
from echojepa.phantom.anatomy.cycle import Rhythm
from echojepa.phantom.anatomy.heart import Heart
from echojepa.phantom.clip import draw_setup, study_patient
from echojepa.phantom.machine.scan import Scanner
from echojepa.phantom.machine.speckle import Amplitudes
from echojepa.phantom.view.plane import Plane
from echojepa.phantom.view.scene import Scene
from echojepa.phantom.view.tissue import WALLS, Wall
from echojepa.phantom.view.views import VIEWS

CONFIG = PhantomConfig(num_studies=1, wall_motion_fraction=0.4, fibrillation_fraction=0.0)
NUM_LEVELS, NUM_RAYS, NUM_LOOKS = 15, 72, 20
STEP_CM, WALL_CM = 0.02, 0.35


def noise_free(
    scanner: Scanner, scene: Scene, seconds: float, rng: np.random.Generator
) -> np.ndarray:
    """Mean received power [num_ranges, num_beams]: speckle averaged away, no noise."""
    points, sensitivity = scene.positions(seconds)
    looks = []
    for _ in range(NUM_LOOKS):
        values = Amplitudes(scene.level, scene.pace, 1.0, rng).values
        looks.append(scanner.envelope(points, sensitivity * values) ** 2)
    return cv2.GaussianBlur(np.mean(looks, axis=0, dtype=np.float32), (0, 0), 0.7)


def contour_cm2(power: np.ndarray, scanner: Scanner, seed_cm: np.ndarray) -> float:
    """Area around a seed [2] up to where the power is half of the wall's behind."""
    turns = np.arange(NUM_RAYS) * 2.0 * np.pi / NUM_RAYS
    radius = np.arange(0.1, 6.0, STEP_CM)
    lateral = seed_cm[0] + np.outer(np.cos(turns), radius)
    depth = seed_cm[1] + np.outer(np.sin(turns), radius)
    row, column = scanner.grid.cells(np.hypot(lateral, depth), np.arctan2(lateral, depth))
    seen = cv2.remap(power, column.astype(np.float32), row.astype(np.float32), cv2.INTER_LINEAR)
    width = round(WALL_CM / STEP_CM)
    wall = maximum_filter1d(seen, width, axis=1, origin=-(width // 2))
    edge = (wall > 0.04) & (seen >= 0.5 * wall)
    assert edge.any(axis=1).all(), "a ray met no wall"
    border = radius[edge.argmax(axis=1)]
    return float(0.5 * np.sin(2.0 * np.pi / NUM_RAYS) * (border * np.roll(border, -1)).sum())


def segmented_ml(heart: Heart, seconds: float, scanner: Scanner, rng: np.random.Generator) -> float:
    """Volume from contours on a stack of short-axis pictures, summed by Gauss-Legendre discs."""
    beat = Rhythm(np.zeros(1), (heart.cycle,), np.ones(1))
    lv = heart.at(beat.phase(seconds)).chambers["lv"]
    first = int(np.flatnonzero(lv.shape.inner_cm > 0.0)[0]) - 1
    tip, base = lv.stretch * lv.shape.heights_cm[[first, -1]]
    textbook = VIEWS["PSAX-PM"].plane(heart, rng).axes
    nodes, weights = np.polynomial.legendre.leggauss(NUM_LEVELS)
    volume = 0.0
    for node, weight in zip(nodes, weights, strict=True):
        axis_point = np.array([0.0, 0.0, tip + 0.5 * (node + 1.0) * (base - tip)])
        plane = Plane(axis_point, textbook).moved(-0.5 * scanner.grid.depth_cm)
        scene = Scene(heart, beat, plane, [Wall(look, heart, plane, rng) for look in WALLS])
        power = noise_free(scanner, scene, seconds, rng)
        seed = scene.moment(seconds).to_image(axis_point[None])[0, :2]
        volume += 0.5 * weight * (base - tip) * contour_cm2(power, scanner, seed)
    return volume


@pytest.mark.parametrize(
    "study",
    [5, 12, *(pytest.param(study, marks=pytest.mark.integration) for study in range(20, 32))],
)
def test_ejection_fraction_from_segmented_pictures_is_the_label(study: int) -> None:
    patient, rng = study_patient(CONFIG, study), np.random.default_rng(study)
    heart = patient.heart
    knobs = replace(
        draw_setup(CONFIG, study, "PSAX-PM").knobs,
        half_angle_rad=0.75,
        depth_cm=15.0 * heart.size,
    )
    scanner = Scanner(knobs, 112, 0.0, 1.0)
    times = (0.0, heart.cycle.systole_seconds)
    edv, esv = (segmented_ml(heart, seconds, scanner, rng) for seconds in times)
    print(f"{patient.population}, {patient.wall_motion}: {100 * (1 - esv / edv):.1f}")
    assert edv == pytest.approx(heart.labels["edv_ml"], rel=0.04)
    assert 100.0 * (edv - esv) / edv == pytest.approx(heart.labels["lvef"], abs=1.0)
