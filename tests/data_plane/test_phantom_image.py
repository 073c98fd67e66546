"""Phantoms: labels true to the geometry, speckle true to physics."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from echojepa.data.phantom import Clip, PhantomConfig, render_clip
from echojepa.data.phantom.clip import patient
from echojepa.data.phantom.cycle import Cycle
from echojepa.data.phantom.scan import Scanner, draw_knobs
from echojepa.data.phantom.views import VIEWS

ONE = PhantomConfig(num_studies=1)


def volume_of_revolution_ml(clip: Clip, seconds: float) -> float:
    """Volume of the left ventricle from the pixels of its cavity, turned about its axis."""
    pixels = clip.scanner.pixel_points()
    moment = clip.scene.moment(seconds)
    inside = pixels[moment.distance_cm(pixels, ["lv"], 0.0) < 0.0]
    from_axis_cm = np.abs(moment.pose.to_cut(inside, seconds)[:, 0])
    return float(np.pi * from_axis_cm.sum() * clip.scanner.pixel_cm**2)


@pytest.mark.parametrize("study", range(5))
def test_label_is_what_segmentation_of_the_image_plane_gives(study: int) -> None:
    clip = render_clip(ONE.model_copy(update={"size": 400, "num_frames": 1}), study, "A4C")
    edv = volume_of_revolution_ml(clip, 0.0)
    esv = volume_of_revolution_ml(clip, clip.heart.cycle.systole_seconds)
    assert edv == pytest.approx(clip.labels["edv_ml"], rel=0.01)
    assert 100 * (edv - esv) / edv == pytest.approx(clip.labels["lvef"], abs=1.0)


def test_views_are_cuts_of_one_heart() -> None:
    heart = patient(ONE, 0)
    for seconds in (0.0, heart.cycle.systole_seconds):
        anatomy = heart.at(seconds)
        long = VIEWS["A4C"].cut(heart, anatomy)["lv"]
        short = VIEWS["PSAX-PM"].cut(heart, anatomy)["lv"]
        level = heart.rest.chambers["lv"].tip_cm + 0.5 * heart.lv_length_cm
        border = np.array([[short.inner_cm[0], level], [short.outer_cm[0], level]])
        assert long.distance_cm(border, 0.0)[0] == pytest.approx(0.0, abs=1e-6)
        assert long.distance_cm(border, 1.0)[1] == pytest.approx(0.0, abs=1e-6)


def test_muscle_is_neither_gained_nor_lost() -> None:
    for study in range(20):
        heart = patient(ONE, study)
        walls = []
        for seconds in np.linspace(0.0, heart.cycle.beat_seconds, 7):
            lv = heart.at(seconds).chambers["lv"]
            walls.append(float(lv.volume_ml(lv.wall_cm) - lv.volume_ml()))
        assert np.ptp(walls) < 1e-6 * walls[0]


def test_patients_cover_the_stated_ranges() -> None:
    labels = [patient(ONE, study).labels for study in range(300)]
    fractions, rates = ([one[name] for one in labels] for name in ("lvef", "heart_rate"))
    assert 15 <= min(fractions) < 18 and 72 < max(fractions) <= 75
    assert 45 <= min(rates) < 48 and 150 < max(rates) <= 160


@pytest.mark.parametrize("rate", [45.0, 70.0, 110.0, 160.0])
def test_every_beat_empties_and_refills(rate: float) -> None:
    cycle = Cycle(rate, early_share=0.7)
    times = np.linspace(0.0, cycle.beat_seconds, 500, endpoint=False)
    emptying, opening = cycle.emptying(times), cycle.inflow_opening(times)
    assert cycle.emptying(0.0) == 0.0
    assert cycle.emptying(cycle.systole_seconds) == pytest.approx(1.0)
    assert emptying.min() >= 0.0 and emptying.max() <= 1.0
    assert np.abs(np.diff(emptying)).max() < 0.05
    assert opening[times < cycle.systole_seconds].max() == 0.0 and opening.max() > 0.9
    assert cycle.emptying(7 * cycle.beat_seconds + 0.1) == pytest.approx(cycle.emptying(0.1))


def test_systole_takes_more_of_a_short_beat() -> None:
    shares = [Cycle(r, 0.7).systole_seconds * r / 60 for r in (45.0, 80.0, 120.0, 160.0)]
    assert shares == sorted(shares) and 0.25 < shares[0] < 0.35 and 0.5 < shares[-1] < 0.6


def test_speckle_of_even_tissue_is_rayleigh_distributed() -> None:
    rng = np.random.default_rng(0)
    scanner = Scanner(draw_knobs(rng), depth_cm=15.0, size=64, electronic_noise=0.0)
    radius = np.sqrt(rng.uniform(2.0**2, 15.0**2, 60_000)).astype(np.float32)
    angle = rng.uniform(-0.85, 0.85, len(radius)).astype(np.float32)
    points = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)
    amplitudes = (rng.standard_normal(len(radius)) + 0j).astype(np.complex64)
    envelope = scanner.envelope(points, amplitudes)[80:-10, 8:-8]
    assert envelope.mean() / envelope.std() == pytest.approx(1.91, rel=0.1)
    near, far = envelope[: len(envelope) // 2], envelope[len(envelope) // 2 :]
    assert near.mean() == pytest.approx(far.mean(), rel=0.15), "level must not depend on depth"


@pytest.mark.parametrize("view", ["A4C", "PSAX-PM"])
def test_dark_cavity_shrinks_in_systole(view: str) -> None:
    config = ONE.model_copy(update={"native_fps": (25.0,), "num_frames": 36})
    clip = render_clip(config, 4, view)
    cavity = clip.lv_cavity()
    area = cavity.sum(axis=(1, 2))
    ever = cavity.any(axis=0)
    dark = (clip.frames[:, ever] < 30).sum(axis=1)
    assert area.min() < 0.7 * area.max()
    assert np.corrcoef(dark, area)[0, 1] > 0.9


def test_frame_is_a_fan_on_black() -> None:
    frames = render_clip(ONE.model_copy(update={"num_frames": 4}), 0, "A4C").frames
    assert frames.dtype == np.uint8 and frames.shape == (4, 112, 112)
    assert not frames[:, :20, :20].any() and not frames[:, :20, -20:].any()
    assert 0.3 < (frames.max(axis=0) > 0).mean() < 0.8


def follow_muscle(clip: Clip, *, moving: bool) -> np.ndarray:
    """Grey levels [T, n] at material points of the left ventricle's wall, or at fixed ones."""
    sides = np.linspace(0.2, 0.85, 40)
    turn, layer = np.meshgrid(np.r_[-sides, sides], np.linspace(0.2, 0.8, 6))
    turn, share = turn.ravel(), clip.heart.rest.chambers["lv"].muscle_share(layer.ravel())
    first_pixel = clip.scanner.pixel_points()[0]
    levels = []
    for frame, now in zip(clip.frames, clip.seconds, strict=True):
        moment = clip.scene.moment(now if moving else clip.seconds[0])
        depth = moment.anatomy.chambers["lv"].layer_of(share)
        points = moment.to_image(moment.cuts["lv"].points(turn, depth))
        at = ((points - first_pixel) / clip.scanner.pixel_cm).astype(np.float32)
        picked = cv2.remap(frame.astype(np.float32), at[:, :1], at[:, 1:], cv2.INTER_LINEAR)
        levels.append(picked[:, 0])
    return np.stack(levels)


def speckle_correlation(lags: list[int], seconds: float, *, moving: bool) -> list[float]:
    """Correlation over time of muscle's grain, its lasting brightness taken away."""

    def levels(decorrelation_seconds: float) -> np.ndarray:
        changes = {"decorrelation_seconds": decorrelation_seconds, "native_fps": (50.0,)}
        clip = render_clip(ONE.model_copy(update=changes), 4, "A4C")
        return follow_muscle(clip, moving=moving)

    # The same clip with speckle that is new in every frame shows the lasting brightness.
    grain = levels(seconds) - levels(1e-3).mean(axis=0)
    pairs = [zip(grain[:-lag], grain[lag:], strict=True) for lag in lags]
    return [float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in one])) for one in pairs]


def test_speckle_lasts_from_frame_to_frame_and_decays() -> None:
    next_frame, soon, late = speckle_correlation([1, 6, 30], 0.6, moving=True)
    assert next_frame > 0.75
    assert next_frame - 0.2 > soon > late + 0.1
    assert abs(speckle_correlation([1], 1e-3, moving=True)[0]) < 0.1


def test_speckle_moves_with_the_muscle() -> None:
    tracked = speckle_correlation([10], 1e3, moving=True)[0]
    assert tracked > speckle_correlation([10], 1e3, moving=False)[0] + 0.15


def test_render_is_a_pure_function() -> None:
    config = ONE.model_copy(update={"num_frames": 3})
    first, again = (render_clip(config, 1, "A4C") for _ in range(2))
    assert np.array_equal(first.frames, again.frames) and first.labels == again.labels
    other_take = render_clip(config, 1, "A4C", take=1)
    assert not np.array_equal(first.frames, other_take.frames)
    assert first.labels == other_take.labels == render_clip(config, 1, "PSAX-PM").labels
