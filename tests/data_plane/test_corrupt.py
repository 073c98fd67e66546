"""Acoustic corruptions: the stated formulas, the same everywhere, and a clean control."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import subprocess
import sys
from functools import cache
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import ROOT

from echojepa.config import Strict, validate
from echojepa.data.corrupt import (
    SEVERITIES,
    Corruption,
    CorruptionSuite,
    DepthAttenuation,
    Gain,
    GaussianShadow,
    Haze,
    Preset,
    Reencoded,
    corrupted,
    sector,
)
from echojepa.errors import ConfigError
from echojepa.phantom import PhantomConfig, render_clip
from echojepa.phantom.clip import Clip

FPS = 50.0
EVERY = [corruption for steps in SEVERITIES.values() for corruption in steps]


def bright(t: int, height: int, width: int) -> np.ndarray:
    """Frames [T, H, W, 3] of independent pixels, all of them lit, so that all of it is sector."""
    return np.random.default_rng(1).integers(11, 256, (t, height, width, 3), dtype=np.uint8)


@cache
def clip(size: int = 112, study: int = 0) -> Clip:
    """A phantom's apical view."""
    config = PhantomConfig(seed=3, num_studies=4, size=size, num_frames=16)
    return render_clip(config, study, "A4C")


def phantom(size: int = 112) -> np.ndarray:
    """One, [T, H, W, 3]."""
    return np.repeat(clip(size).frames[..., None], 3, axis=3)


def uniform(seed: int, text: str, number: int) -> float:
    """The number-th value from 0 to 1 of a clip, from Philox itself."""
    s = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") // 2
    bits = np.random.Philox(key=np.array([seed, 4], np.uint64), counter=[0, 0, 0, s])
    return (int(bits.random_raw(number + 1)[number]) // 2**11) / 2**53


def formula(corruption: Corruption, size: tuple[int, int], clip_id: str, at: tuple) -> float:
    """One grey level, `at` its frame, row, column and old level, in plain Python."""
    (height, width), (t, row, column, level) = size, at
    depth = math.sqrt((column / width - 0.5) ** 2 + (row / height) ** 2)
    match corruption:
        case DepthAttenuation(gamma=gamma, floor=floor):
            return level * ((1 - floor) * math.exp(-gamma * depth) + floor)
        case GaussianShadow(strength=strength, sigma=sigma, seed=seed):
            x, y = (0.2 + 0.6 * uniform(seed, f"shadow/{clip_id}", i) for i in (0, 1))
            across = (column - x * width) ** 2 / (2 * (sigma * width) ** 2)
            down = (row - y * height) ** 2 / (2 * (sigma * height) ** 2)
            return level * (1 - strength * math.exp(-across - down))
        case Haze(radius=radius, sigma=sigma, seed=seed):
            static = uniform(seed, f"haze {t}/{clip_id}", row * width + column)
            band = math.exp(-((depth - radius) ** 2) / (2 * sigma**2))
            return 255 * (level / 255 + 0.5 * static * band)
        case Gain(decibels=gain, dynamic_range=reach):
            amplitude = 10 ** (reach * (level / 255 - 1) / 20) * 10 ** (gain / 20)
            return 255 * (1 + 20 * math.log10(amplitude) / reach)
    raise AssertionError(corruption)


@pytest.mark.parametrize(
    "corruption",
    [
        *EVERY,
        DepthAttenuation(gamma=1.0, floor=0.3),
        GaussianShadow(strength=1.0, sigma=0.1, seed=8),
        Haze(radius=0.9, sigma=0.3, seed=8),
        Gain(decibels=5.0, dynamic_range=45.0),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(15, 11), (12, 16)])
def test_every_grey_level_is_that_of_the_formula(
    corruption: Corruption, size: tuple[int, int]
) -> None:
    frames = bright(2, *size)
    found = corrupted(frames, corruption, "clip/7", FPS, reencode=False)
    assert found.dtype == np.uint8
    wrong = 0
    for t, row, column, channel in np.ndindex(frames.shape):
        level = int(frames[t, row, column, channel])
        exact = formula(corruption, size, "clip/7", (t, row, column, level))
        expected = min(max(round(exact), 0), 255)
        assert abs(int(found[t, row, column, channel]) - expected) <= 1
        wrong += int(found[t, row, column, channel]) != expected
    assert wrong <= 2  # where another order of operations falls on the other side of a half
    assert not np.array_equal(found, frames)


def test_halves_are_rounded_to_even() -> None:
    frames = np.full((1, 8, 8, 3), 100, np.uint8)
    frames[..., 1], frames[..., 2] = 101, 102
    half = Gain(decibels=0.5, dynamic_range=255.0)
    found = corrupted(frames, half, "a", FPS, reencode=False)
    assert found[0, 4, 4].tolist() == [100, 102, 102]


@pytest.mark.parametrize("corruption", EVERY, ids=str)
def test_all_frames_are_changed_alike_but_for_static(corruption: Corruption) -> None:
    still = np.repeat(phantom()[:1], 4, axis=0)
    found = corrupted(still, corruption, "a", FPS, reencode=False)
    assert all(np.array_equal(found[0], frame) for frame in found) != isinstance(corruption, Haze)
    alone = corrupted(still[:1], corruption, "a", FPS, reencode=False)
    assert np.array_equal(alone[0], found[0])


def test_shadows_and_static_belong_to_the_clip_and_the_seed() -> None:
    steps = SEVERITIES["gaussian_shadow"]
    assert len({step.centre("a") for step in steps if isinstance(step, GaussianShadow)}) == 1
    shadow, haze = GaussianShadow(strength=0.5, sigma=0.2), Haze(sigma=0.1)
    centres = np.array([shadow.centre(f"clip {i}") for i in range(2000)])
    assert centres.min() >= 0.2
    assert centres.max() < 0.8
    assert np.abs(centres.mean(axis=0) - 0.5).max() < 4 * 0.6 / math.sqrt(12 * 2000)
    assert abs(np.corrcoef(centres.T)[0, 1]) < 0.09
    assert len(np.unique(centres)) == centres.size
    reseeded = GaussianShadow(strength=0.5, sigma=0.2, seed=1), Haze(sigma=0.1, seed=1)
    for one, other in zip((shadow, haze), reseeded, strict=True):
        here = corrupted(phantom(), one, "a", FPS, reencode=False)
        assert not np.array_equal(here, corrupted(phantom(), one, "b", FPS, reencode=False))
        assert not np.array_equal(here, corrupted(phantom(), other, "a", FPS, reencode=False))


PROGRAM = """
import hashlib
import numpy as np
from echojepa.data.corrupt import SEVERITIES, Reencoded, corrupted
frames = np.random.default_rng(2).integers(11, 256, (6, 45, 61, 3), dtype=np.uint8)
for steps in [*SEVERITIES.values(), (Reencoded(),)]:
    for again in (False, True):
        found = corrupted(frames, steps[0], "clip 7", 37.5, reencode=again)
        print(hashlib.sha256(found.tobytes()).hexdigest())
"""


def test_another_process_with_another_hash_seed_does_the_same() -> None:
    said = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        said.append(done.stdout.split())
    assert len(said[0]) == 12
    assert said[0] == said[1]


@given(
    frames=st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40)),
    corruption=st.sampled_from([*EVERY, Reencoded()]),
    clip_id=st.text(max_size=9),
    fps=st.floats(1.0, 200.0),
    reencode=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_size_stays_and_a_second_call_gives_the_same_bytes(
    frames: tuple[int, int, int], corruption: Corruption, clip_id: str, fps: float, reencode: bool
) -> None:
    video = bright(*frames)
    video.setflags(write=False)
    found = corrupted(video, corruption, clip_id, fps, reencode=reencode)
    assert (found.shape, found.dtype) == (video.shape, np.uint8)
    again = corrupted(video.copy(), corruption, clip_id, fps, reencode=reencode)
    assert found.tobytes() == again.tobytes()


def test_re_encoding_repeats_to_the_byte_whatever_lies_in_memory() -> None:
    """With x264's defaults, most runs differ."""
    lots = random.Random(0)
    found = set()
    for number in range(12):
        junk = np.random.default_rng(number).bytes(lots.randrange(1000, 2_000_000))
        found.add(corrupted(phantom(), Reencoded(), "a", FPS).tobytes())
        del junk
    assert len(found) == 1


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal to noise in dB."""
    return 10 * math.log10(255**2 / np.mean((one.astype(float) - other) ** 2))


@pytest.mark.parametrize("cut", [(112, 112), (111, 97)], ids=str)
def test_the_control_is_almost_the_original(cut: tuple[int, int]) -> None:
    original = phantom()[:, : cut[0], : cut[1]]
    control = corrupted(original, Reencoded(), "a", FPS)
    assert not np.array_equal(control, original)
    assert psnr(control, original) > 36
    means = control.mean(axis=(1, 2, 3)) - original.mean(axis=(1, 2, 3))
    assert np.abs(means).max() < 0.5
    order = [max(range(len(original)), key=lambda i: psnr(frame, original[i])) for frame in control]
    assert order == list(range(len(original)))


def test_the_last_row_and_column_of_an_odd_video_are_kept() -> None:
    frames = np.full((3, 33, 35, 3), 60, np.uint8)
    frames[:, -1], frames[:, :, -1] = 200, 200
    control = corrupted(frames, Reencoded(), "a", FPS).astype(int)
    assert np.abs(control - frames).max() < 12


@pytest.mark.parametrize("preset", SEVERITIES)
def test_beside_the_control_corruptions_stand_out_the_more_the_stronger(preset: Preset) -> None:
    control = corrupted(phantom(), Reencoded(), "a", FPS)
    closeness = [psnr(corrupted(phantom(), step, "a", FPS), control) for step in SEVERITIES[preset]]
    assert psnr(phantom(), control) - 3 > closeness[0] > closeness[1] > closeness[2]


def test_corrupted_videos_are_re_encoded_once_and_only_if_asked_to() -> None:
    shadow = SEVERITIES["gaussian_shadow"][0]
    plain = corrupted(phantom(), shadow, "a", FPS, reencode=False)
    coded = corrupted(phantom(), shadow, "a", FPS)
    assert np.array_equal(coded, corrupted(plain, Reencoded(), "a", FPS))
    assert not np.array_equal(coded, plain)
    control = corrupted(phantom(), Reencoded(), "a", FPS)
    assert np.array_equal(control, corrupted(phantom(), Reencoded(), "a", FPS, reencode=False))


def test_the_sector_is_found_without_text_and_trace() -> None:
    for study in range(2):
        frames, true = clip(224, study).frames, clip(224, study).scanner.sector()
        found = sector(np.repeat(frames[..., None], 3, axis=3))
        assert (found & true).sum() / (found | true).sum() > 0.8
        assert (found & ~true).sum() < 0.05 * true.sum()
    assert not sector(np.full((2, 20, 20, 3), 10, np.uint8)).any()


def test_haze_and_gain_leave_what_lies_outside_of_the_sector() -> None:
    video = phantom(224)
    outside = ~sector(video)
    assert video[:, outside].max() > 100  # there is text
    for preset in ("haze", "overgain", "undergain"):
        found = corrupted(video, SEVERITIES[preset][2], "a", FPS, reencode=False)
        assert np.array_equal(found[:, outside], video[:, outside])


def test_the_published_suite_is_a_control_and_six_conditions() -> None:
    suite = CorruptionSuite()
    assert suite.control == Reencoded()
    assert [condition[:2] for condition in suite.conditions] == [
        *(("depth_attenuation", step) for step in (1, 2, 3)),
        *(("gaussian_shadow", step) for step in (1, 2, 3)),
    ]
    assert suite.conditions[1].corruption == DepthAttenuation(gamma=1.5, floor=0.0)
    assert suite.conditions[5].corruption == GaussianShadow(strength=0.8, sigma=0.25)
    plain = CorruptionSuite(presets=get_args(Preset), reencode=False)
    assert plain.control is None
    assert [condition.corruption for condition in plain.conditions] == EVERY


class Holder(Strict):
    """A config that names a corruption."""

    corruption: Corruption


def test_a_config_names_a_corruption_by_its_kind() -> None:
    for corruption in [*EVERY, Reencoded()]:
        tree = json.loads(Holder(corruption=corruption).model_dump_json())
        assert validate(tree, Holder, "").corruption == corruption
    for wrong in ({"kind": "fog"}, {"kind": "haze"}, {"kind": "gain", "decibels": 1, "sigma": 1}):
        with pytest.raises(ConfigError):
            validate({"corruption": wrong}, Holder, "")
