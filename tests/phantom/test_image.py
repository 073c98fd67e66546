"""Phantom pictures: speckle true to physics, tissue that carries it, fans on black."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from echojepa.phantom import Clip, PhantomConfig, render_clip
from echojepa.phantom.anatomy.chamber import Chamber, Shape, tube_profile
from echojepa.phantom.anatomy.populations import POPULATIONS
from echojepa.phantom.machine.scan import Scanner
from echojepa.phantom.machine.speckle import Amplitudes
from echojepa.phantom.machine.vendors import VENDORS, draw_knobs
from echojepa.phantom.view.tissue import ELEVATION_CM, REACH_CM, draw_in_wall

ONE = PhantomConfig(
    num_studies=1,
    vendors=("aster",),
    held_out_vendor=None,
    paediatric_fraction=0,
    obese_fraction=0,
    fibrillation_fraction=0,
    wall_motion_fraction=0,
    overlays=False,
)


def still_tissue(rng: np.random.Generator, vendor: str) -> tuple[Scanner, np.ndarray, np.ndarray]:
    """A scanner over a thick ring of muscle: points [n, 2] and the beam's sensitivity [n]."""
    knobs = draw_knobs(VENDORS[vendor], POPULATIONS["adult"], 1.0, None, rng)
    ring = Shape((0.0, -1.0, 0.0), (0.0, 1.0, 0.0), *tube_profile(2.0, 4.0, 8.5))
    chamber = Chamber(ring)
    points = chamber.positions(draw_in_wall(chamber, rng))
    points = points[(np.abs(points[:, 1]) < REACH_CM) & (points[:, 2] > 0.0)]
    sensitivity = np.exp(-0.5 * (points[:, 1] / ELEVATION_CM) ** 2)
    return Scanner(knobs, 64, 0.0, 1.0), points[:, [0, 2]].astype(np.float32), sensitivity


def middle(scanner: Scanner, envelope: np.ndarray) -> np.ndarray:
    """The part of a polar picture that lies well inside of the block."""
    rows = (scanner.grid.ranges_cm > 6.0) & (scanner.grid.ranges_cm < 11.0)
    columns = np.abs(scanner.grid.angles_rad) < 0.2
    return envelope[np.ix_(rows, columns)]


@pytest.mark.parametrize("vendor", VENDORS)
def test_speckle_of_even_tissue_is_rayleigh_distributed(vendor: str) -> None:
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(6):
        scanner, points, sensitivity = still_tissue(rng, vendor)
        level = np.ones(len(points))
        amplitudes = Amplitudes(level, level, 1.0, rng)
        envelope = middle(scanner, scanner.envelope(points, sensitivity * amplitudes.values))
        seen.append(envelope / envelope.mean())
    ratio = np.mean([one.mean() for one in seen]) / np.sqrt(np.mean([one.var() for one in seen]))
    assert ratio == pytest.approx(1.91, rel=0.05)


@pytest.mark.parametrize("knob", [0.1, 0.35, 1.0])
def test_measured_decorrelation_time_is_the_knobs(knob: float) -> None:
    rng = np.random.default_rng(1)
    step, num_steps = knob / 5, 60
    scanner, points, sensitivity = still_tissue(rng, "aster")
    level = np.ones(len(points))
    amplitudes = Amplitudes(level, level, knob, rng)
    frames = []
    for _ in range(num_steps):
        amplitudes.step(step)
        envelope = scanner.envelope(points, sensitivity * amplitudes.values)
        frames.append(np.square(middle(scanner, envelope)).ravel())
    intensity = np.stack(frames)
    intensity -= intensity.mean()
    lags = np.arange(1, 9)
    variance = np.square(intensity).mean()
    correlation = [float((intensity[:-k] * intensity[k:]).mean() / variance) for k in lags]
    slope = np.polyfit(lags * step, np.log(correlation), 1)[0]
    assert -1.0 / slope == pytest.approx(knob, rel=0.1)


def test_level_does_not_depend_on_depth() -> None:
    rng = np.random.default_rng(2)
    scanner, points, sensitivity = still_tissue(rng, "aster")
    level = np.ones(len(points))
    seen = middle(
        scanner,
        np.mean(
            [
                scanner.envelope(points, sensitivity * Amplitudes(level, level, 1.0, rng).values)
                for _ in range(8)
            ],
            axis=0,
        ),
    )
    near, far = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert near.mean() == pytest.approx(far.mean(), rel=0.1)


@pytest.mark.parametrize("view", ["A4C", "PSAX-PM"])
def test_dark_cavity_shrinks_in_systole(view: str) -> None:
    config = ONE.model_copy(update={"native_fps": (25.0,), "num_frames": 36})
    clip = render_clip(config, 4, view)
    cavity = clip.lv_cavity()
    area = cavity.sum(axis=(1, 2))
    ever = cavity.any(axis=0)
    dark = (clip.frames[:, ever] < 40).sum(axis=1)
    assert area.min() < 0.8 * area.max()
    assert np.corrcoef(dark, area)[0, 1] > 0.9


def test_frame_is_a_fan_on_black() -> None:
    clip = render_clip(ONE.model_copy(update={"num_frames": 4}), 0, "A4C")
    frames, sector = clip.frames, clip.scanner.sector()
    assert frames.dtype == np.uint8 and frames.shape == (4, 112, 112)
    edge = cv2.dilate(sector.astype(np.uint8), np.ones((3, 3))) > 0
    assert not frames[:, ~edge].any(), "nothing outside of the fan"
    assert (frames[:, sector] > 0).mean() > 0.4


def test_overlays_and_colour() -> None:
    config = ONE.model_copy(update={"num_frames": 12, "size": 160})
    plain = render_clip(config, 0, "A4C").frames
    marked = render_clip(config.model_copy(update={"overlays": True}), 0, "A4C").frames
    changed = (plain != marked).any(axis=0)
    assert changed[:20].any() and changed[-20:].any() and not changed[40:-24].any()
    assert (plain != marked).any(axis=(1, 2)).all(), "in every frame"
    clip = render_clip(config.model_copy(update={"colour_fraction": 1.0}), 0, "A4C")
    spread = np.ptp(clip.frames.astype(int), axis=3) > 20
    assert clip.frames.shape == (12, 160, 160, 3)
    assert 20 < spread.sum(axis=(1, 2)).max() < 0.3 * 160 * 160
    assert not spread[:, ~clip.scanner.sector()].any()


def test_colour_is_blood_not_muscle() -> None:
    config = ONE.model_copy(
        update={"num_frames": 10, "colour_fraction": 1.0, "native_fps": (20.0,), "size": 160}
    )
    painted = on_muscle = 0
    for study, view in ((0, "A4C"), (3, "PSAX-PM"), (6, "A5C"), (9, "SC4C")):
        clip = render_clip(config, study, view)
        points = clip.scanner.pixel_points()
        for frame, now in zip(clip.frames, clip.seconds, strict=True):
            moment = clip.scene.moment(now)
            lv = moment.anatomy.chambers["lv"]
            inside = moment.to_heart(points)
            muscle = (lv.distance_cm(inside, 0.0) > 0) & (lv.distance_cm(inside, 1.0) < 0)
            coloured = (np.ptp(frame.astype(int), axis=2) > 20).ravel()
            painted += int(coloured.sum())
            on_muscle += int(coloured[muscle].sum())
    assert painted > 500
    assert on_muscle < 0.01 * painted, "but where the aortic root is let into the wall"


def follow_muscle(clip: Clip, *, moving: bool) -> np.ndarray:
    """Grey levels [T, n] at material points of the left ventricle's wall, or at fixed ones."""
    lv = clip.patient.heart.rest.chambers["lv"]
    heights, shares = np.meshgrid(
        np.linspace(0.3, 0.85, 30) * lv.shape.height_cm, np.linspace(0.2, 0.8, 6)
    )
    across = np.array([1.0, 1.0, 0.0]) * clip.scene.plane.axes[0]
    side = np.arctan2(across[1], across[0])
    sides = np.repeat([side, side + np.pi], heights.size)
    pieces = lv.pieces(sides, np.tile(heights.ravel(), 2), np.tile(shares.ravel(), 2))
    first_pixel = clip.scanner.pixel_points()[0]
    levels = []
    for frame, now in zip(clip.frames, clip.seconds, strict=True):
        moment = clip.scene.moment(now if moving else clip.seconds[0])
        points = moment.to_image(moment.anatomy.chambers["lv"].positions(pieces))[:, :2]
        at = ((points - first_pixel) / clip.scanner.pixel_cm).astype(np.float32)
        picked = cv2.remap(frame.astype(np.float32), at[:, :1], at[:, 1:], cv2.INTER_LINEAR)
        levels.append(picked[:, 0])
    return np.stack(levels)


def speckle_correlation(lags: list[int], seconds: float, *, moving: bool) -> list[float]:
    """Correlation over time of muscle's grain, its lasting brightness taken away."""

    def levels(decorrelation_seconds: float) -> np.ndarray:
        changes = {"decorrelation_seconds": decorrelation_seconds, "native_fps": (50.0,)}
        return follow_muscle(render_clip(ONE.model_copy(update=changes), 4, "A4C"), moving=moving)

    # The same clip with speckle that is new in every frame shows the lasting brightness.
    grain = levels(seconds) - levels(1e-3).mean(axis=0)
    pairs = [zip(grain[:-lag], grain[lag:], strict=True) for lag in lags]
    return [float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in one])) for one in pairs]


def test_speckle_lasts_from_frame_to_frame_and_decays() -> None:
    next_frame, soon, late = speckle_correlation([1, 6, 30], 0.6, moving=True)
    assert next_frame > 0.7
    assert next_frame - 0.15 > soon > late + 0.1
    assert abs(speckle_correlation([4], 1e-3, moving=True)[0]) < 0.1


def test_speckle_moves_with_the_muscle() -> None:
    tracked = speckle_correlation([6], 1e3, moving=True)[0]
    assert tracked > speckle_correlation([6], 1e3, moving=False)[0] + 0.1


def test_contrast_and_noise_knobs() -> None:
    def grain(**changes: float) -> float:
        """Standard deviation between neighbouring pixels of muscle."""
        clip = render_clip(ONE.model_copy(update={"num_frames": 6, **changes}), 0, "A4C")
        lv = clip.scene.moment(clip.seconds[0])
        points = lv.to_heart(clip.scanner.pixel_points())
        chamber = lv.anatomy.chambers["lv"]
        wall = (chamber.distance_cm(points, 0.2) > 0) & (chamber.distance_cm(points, 0.8) < 0)
        fine = clip.frames[0].astype(float) - cv2.GaussianBlur(
            clip.frames[0].astype(float), (0, 0), 3
        )
        return float(fine[wall.reshape(112, 112)].std())

    assert grain(speckle_contrast=0.0) < 0.5 * grain(speckle_contrast=0.5) + 3.0
    assert grain(speckle_contrast=0.5) < 0.85 * grain()

    def flicker(noise: float) -> float:
        config = ONE.model_copy(
            update={"num_frames": 2, "electronic_noise": noise, "decorrelation_seconds": 1e3}
        )
        clip = render_clip(config, 0, "A4C")
        deep = (
            clip.scanner.pixel_points()[:, 1].reshape(112, 112) > 0.85 * clip.scanner.grid.depth_cm
        )
        return float(np.abs(np.diff(clip.frames.astype(float), axis=0))[:, deep].mean())

    assert flicker(0.3) > 1.5 * flicker(0.0)


def test_render_is_a_pure_function() -> None:
    config = ONE.model_copy(update={"num_frames": 3})
    first, again = (render_clip(config, 1, "A4C") for _ in range(2))
    assert np.array_equal(first.frames, again.frames) and first.labels == again.labels
    other_take = render_clip(config, 1, "A4C", take=1)
    assert not np.array_equal(first.frames, other_take.frames)
    assert first.labels == other_take.labels == render_clip(config, 1, "PSAX-PM").labels
