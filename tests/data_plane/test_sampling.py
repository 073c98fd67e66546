"""Which clip, which window, which crop: pure functions of (seed, s)."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echojepa.config import validate
from echojepa.data.sampling import (
    Box,
    ClipConfig,
    Domain,
    Permutation,
    SampleRng,
    Seeds,
    centre_view,
    crop_box,
    draw,
    rows_of,
    window_at,
    window_start_range,
)
from echojepa.errors import ClipError, ConfigError

ROW: dict[str, Any] = {"num_frames": 120, "native_fps": 50.0, "height": 240, "width": 320}


# ---------------------------------------------------------------------------------------- order


@given(n=st.integers(1, 3000), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_permutation_is_a_bijection(n: int, seed: int, epoch: int) -> None:
    out = Permutation(n, seed, epoch)(np.arange(n))
    assert np.array_equal(np.sort(out), np.arange(n))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 16, 17, 255, 256, 257, 4096, 4097, 65_537])
def test_permutation_at_the_borders_of_its_domain(n: int) -> None:
    out = Permutation(n, 1, 0)(np.arange(n))
    assert np.array_equal(np.sort(out), np.arange(n))


def test_permutation_of_nothing() -> None:
    with pytest.raises(ValueError, match="0 elements"):
        Permutation(0, 0, 0)


def test_permutation_differs_by_seed_and_epoch() -> None:
    n = 2000
    base = Permutation(n, 5, 3)(np.arange(n))
    assert np.array_equal(base, Permutation(n, 5, 3)(np.arange(n)))
    for other in (Permutation(n, 6, 3), Permutation(n, 5, 4), Permutation(n, 3, 5)):
        same = (other(np.arange(n)) == base).sum()
        assert same < 10  # one in expectation, as for two independent shuffles


def test_permutation_shuffles() -> None:
    n = 20_000
    out = Permutation(n, 0, 0)(np.arange(n))
    assert (out == np.arange(n)).sum() < 10
    assert abs(np.corrcoef(out, np.arange(n))[0, 1]) < 0.03
    assert (np.abs(np.diff(out)) == 1).sum() < 15  # two in expectation
    halves = (out[: n // 2] < n // 2).mean()
    assert halves == pytest.approx(0.5, abs=0.02)


def test_permutation_of_18_million_clips_needs_no_memory() -> None:
    n = 18_000_000
    index = np.random.default_rng(0).choice(n, 2000, replace=False)
    tracemalloc.start()
    out = Permutation(n, 0, 0)(index)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500_000
    assert len(set(out.tolist())) == 2000
    assert 0 <= out.min() < out.max() < n
    assert out.max() > 0.99 * n
    assert np.array_equal(Permutation(n, 0, 0)(index[7:8]), out[7:8])


@given(n=st.integers(2, 40), first=st.integers(0, 200), count=st.integers(1, 80))
@settings(max_examples=30, deadline=None)
def test_rows_do_not_depend_on_how_samples_are_grouped(n: int, first: int, count: int) -> None:
    s = np.arange(first, first + count)
    rows = rows_of(s, n, Seeds(9))
    alone = [int(rows_of(s[i : i + 1], n, Seeds(9))[0]) for i in range(0, count, 7)]
    assert rows[::7].tolist() == alone
    order = np.random.default_rng(0).permutation(count)
    assert np.array_equal(rows_of(s[order], n, Seeds(9)), rows[order])


def test_every_epoch_covers_every_row_once() -> None:
    n, epochs = 37, 5
    rows = rows_of(np.arange(n * epochs), n, Seeds(4)).reshape(epochs, n)
    assert all(sorted(epoch) == list(range(n)) for epoch in rows.tolist())
    assert len({tuple(epoch) for epoch in rows.tolist()}) == epochs
    across = rows_of(np.arange(n - 5, n + 5), n, Seeds(4))
    assert np.array_equal(across, np.concatenate([rows[0, -5:], rows[1, :5]]))


# ------------------------------------------------------------------------------- random numbers


def test_golden_numbers() -> None:
    """These must never change: a run that is resumed would see other samples."""
    assert SampleRng(7, Domain.CLIP, 12345).raw(4).tolist() == [
        17638315070527571605,
        17268002793762156663,
        7454371712388291256,
        14178402172799394596,
    ]
    assert SampleRng(0, Domain.ORDER, 0).raw(2).tolist() == [
        15003734204198539638,
        13859618513508960101,
    ]
    rng = SampleRng(7, Domain.CLIP, 12345)
    assert (rng.uniform(), rng.integer(1000), rng.uniform(-2.0, 3.0)) == (
        0.9561749759224902,
        936,
        0.020511501271468724,
    )
    assert Permutation(10, 3, 0)(np.arange(10)).tolist() == [4, 6, 9, 2, 0, 3, 8, 5, 7, 1]
    assert Permutation(18_000_000, 3, 1)(np.arange(5)).tolist() == [
        409750,
        1979419,
        14619247,
        4938408,
        17562565,
    ]
    window, box = draw(Seeds(3), 41, ROW, ClipConfig(num_frames=8))
    assert window.indices.tolist() == [64, 67, 69, 71, 73, 75, 77, 79]
    assert box == Box(top=44, left=43, height=194, width=205)


def test_domains_keep_their_numbers() -> None:
    assert {domain.name: domain.value for domain in Domain} == {"ORDER": 1, "CLIP": 2, "MASK": 3}


def test_streams_differ() -> None:
    keys = [
        (seed, domain, s) for seed in (0, 1, 2**62) for domain in Domain for s in (0, 1, 10**12)
    ]
    streams = np.stack([SampleRng(*key).raw(64) for key in keys])
    assert len(np.unique(streams)) == streams.size  # no number twice, within or across


def test_seeds_up_to_64_bits_differ() -> None:
    for seed in (2**53 + 1, 2**63, 2**64 - 2):
        assert SampleRng(seed, Domain.CLIP, 0).integer(2**60) != (
            SampleRng(seed + 1, Domain.CLIP, 0).integer(2**60)
        )


def test_raw_is_the_same_in_pieces() -> None:
    rng = SampleRng(1, Domain.MASK, 2)
    pieces = [*rng.raw(3).tolist(), *rng.raw(6).tolist()]
    assert SampleRng(1, Domain.MASK, 2).raw(9).tolist() == pieces


@given(
    seed=st.integers(0, 2**62),
    low=st.floats(-1e6, 1e6),
    width=st.floats(1e-3, 1e6),
    n=st.integers(1, 10**9),
)
@settings(max_examples=60, deadline=None)
def test_bounds(seed: int, low: float, width: float, n: int) -> None:
    rng = SampleRng(seed, Domain.CLIP, 0)
    values = [rng.uniform(low, low + width) for _ in range(20)]
    assert all(low <= value <= low + width for value in values)
    assert len(set(values)) > 15
    integers = [rng.integer(n) for _ in range(20)]
    assert all(0 <= value < n for value in integers)


def test_first_numbers_of_consecutive_samples_are_uniform() -> None:
    rngs = [SampleRng(3, Domain.CLIP, s) for s in range(4000)]
    floats = np.sort([rng.uniform() for rng in rngs])
    assert 0 <= floats[0] < floats[-1] < 1
    distance = np.abs(floats - (np.arange(4000) + 0.5) / 4000).max()
    assert distance < 1.63 / 4000**0.5  # Kolmogorov-Smirnov, 1 %
    counts = np.bincount([rng.integer(7) for rng in rngs], minlength=7)
    assert len(counts) == 7
    assert ((counts - 4000 / 7) ** 2 / (4000 / 7)).sum() < 16.8  # chi-square of 6 degrees, 1 %


# -------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize("native_fps", [25.0, 30.0, 37.0, 47.0, 50.0, 30000 / 1001])
@pytest.mark.parametrize("start", [0.0, 0.0133, 0.5, 1.23456])
def test_frames_are_the_nearest_in_time(native_fps: float, start: float) -> None:
    clip = ClipConfig(num_frames=16, fps=24.0)
    window = window_at(start, 120, native_fps, clip)
    wanted = start + np.arange(16) / 24.0
    times = np.arange(120) / native_fps
    distances = np.abs(times[:, None] - wanted[None])  # [native, T]
    chosen = distances[window.indices, np.arange(16)]
    assert chosen == pytest.approx(distances.min(axis=0), abs=1e-9)
    assert window.max_time_error_seconds == pytest.approx(chosen.max(), abs=1e-12)
    assert window.max_time_error_seconds <= 0.5 / native_fps + 1e-9
    assert window.held_frames == 0
    steps = np.diff(window.indices)
    assert (steps >= 0).all()
    assert set(steps.tolist()) <= {int(native_fps // 24), int(native_fps // 24) + 1}


def test_the_native_rate_takes_every_frame() -> None:
    window = window_at(0.5, 60, 30.0, ClipConfig(num_frames=16, fps=30.0))
    assert window.indices.tolist() == list(range(15, 31))
    assert window.max_time_error_seconds == pytest.approx(0.0, abs=1e-12)


@given(
    num_native=st.integers(1, 400),
    native_fps=st.floats(5.0, 200.0),
    fps=st.floats(5.0, 60.0),
    num_frames=st.integers(1, 64),
    part=st.floats(0.0, 1.0),
)
@settings(max_examples=120, deadline=None)
def test_window_properties(
    num_native: int, native_fps: float, fps: float, num_frames: int, part: float
) -> None:
    clip = ClipConfig(num_frames=num_frames, fps=fps)
    latest = window_start_range(num_native, native_fps, clip)
    window = window_at(part * latest, num_native, native_fps, clip)
    assert window.indices.shape == (num_frames,)
    assert window.indices.min() >= 0
    assert window.indices.max() < num_native
    assert (np.diff(window.indices) >= 0).all()
    assert window.max_time_error_seconds <= 0.5 / native_fps + 1e-9
    if latest > 0:
        assert window.held_frames == 0
    if window.held_frames:
        assert (window.indices[-window.held_frames :] == num_native - 1).all()


def test_start_range() -> None:
    clip = ClipConfig(num_frames=16, fps=24.0)
    assert window_start_range(50, 25.0, clip) == pytest.approx(49 / 25 - 15 / 24)
    assert window_start_range(16, 24.0, clip) == 0.0
    assert window_start_range(5, 25.0, clip) == 0.0


def test_a_short_video_holds_its_last_frame() -> None:
    window = window_at(0.0, 10, 24.0, ClipConfig(num_frames=16, fps=24.0))
    assert window.indices.tolist() == [*range(10), *[9] * 6]
    assert window.held_frames == 6
    assert window.max_time_error_seconds == pytest.approx(0.0, abs=1e-12)


def test_a_short_video_is_rejected() -> None:
    clip = ClipConfig(num_frames=16, fps=24.0, short="reject")
    assert window_at(0.0, 16, 24.0, clip).held_frames == 0
    with pytest.raises(ClipError) as caught:
        window_at(0.0, 15, 24.0, clip)
    assert str(caught.value) == "sample: too_short: 15 frames at 24 fps"


def test_a_still() -> None:
    window = window_at(0.0, 1, 30.0, ClipConfig())
    assert window.indices.tolist() == [0] * 16
    assert window.held_frames == 15
    with pytest.raises(ClipError) as caught:
        window_at(0.0, 1, 30.0, ClipConfig(short="reject"))
    assert str(caught.value) == "sample: too_short: 1 frames at 30 fps"


def test_a_dicom_still_is_short_whatever_the_window() -> None:
    """A still without a rate counts as one frame per second: see `decode_dicom.probe`."""
    clip = ClipConfig(num_frames=8, fps=24.0)
    assert window_at(0.0, 1, 1.0, clip).held_frames == 7
    with pytest.raises(ClipError, match="too_short"):
        window_at(0.0, 1, 1.0, clip.model_copy(update={"short": "reject"}))


def test_a_rate_above_the_native_one() -> None:
    repeating = ClipConfig(num_frames=8, fps=50.0)
    window = window_at(0.0, 30, 25.0, repeating)
    assert window.indices.tolist() == [0, 1, 1, 2, 2, 3, 3, 4]  # halves round up
    rejecting = repeating.model_copy(update={"above_native": "reject"})
    with pytest.raises(ClipError) as caught:
        window_at(0.0, 30, 25.0, rejecting)
    assert str(caught.value) == "sample: too_slow: 25 fps, 50 are wanted"
    assert window_at(0.0, 30, 50.0, rejecting).indices.tolist() == list(range(8))
    assert window_at(0.0, 30, 50.0 * (1 - 1e-7), rejecting).indices.tolist() == list(range(8))


# ---------------------------------------------------------------------------------------- crops


@given(
    height=st.integers(8, 1200),
    width=st.integers(8, 1200),
    s=st.integers(0, 10**9),
    low=st.floats(0.1, 1.0),
    flip=st.booleans(),
)
@settings(max_examples=120, deadline=None)
def test_crop_properties(height: int, width: int, s: int, low: float, flip: bool) -> None:
    clip = ClipConfig(crop_scale=(low, 1.0), flip=flip)
    box = crop_box(height, width, clip, SampleRng(0, Domain.CLIP, s))
    assert box.top >= 0
    assert box.left >= 0
    assert 1 <= box.height <= height - box.top
    assert 1 <= box.width <= width - box.left
    # sides are rounded to whole pixels, so aspect and area are met up to half a pixel a side
    assert (box.width + 0.5) / (box.height - 0.5) >= 0.9
    assert (box.width - 0.5) / (box.height + 0.5) <= 1.1
    aspect = min(max(width / height, 0.9), 1.1)
    largest = min(height, width / aspect) * min(width, height * aspect)
    assert (box.width + 0.5) * (box.height + 0.5) >= min(low * height * width, largest - 1)
    assert flip or not box.mirror


def test_crops_vary() -> None:
    boxes = [crop_box(240, 320, ClipConfig(), SampleRng(0, Domain.CLIP, s)) for s in range(500)]
    shares = np.array([box.height * box.width / (240 * 320) for box in boxes])
    assert shares.min() >= 0.49
    assert shares.max() <= 240 * 240 * 1.11 / (240 * 320)  # what an aspect of 1.1 leaves
    assert shares.std() > 0.05
    assert min(box.top for box in boxes) == 0
    assert {box.left for box in boxes} >= {0, 20, 40}
    aspects = np.array([box.width / box.height for box in boxes])
    assert (aspects < 0.95).sum() > 80
    assert (aspects > 1.05).sum() > 80


def test_a_frame_that_no_draw_fits_gets_its_largest_central_crop() -> None:
    clip = ClipConfig(crop_scale=(0.9, 1.0))
    wide = crop_box(100, 400, clip, SampleRng(0, Domain.CLIP, 0))
    assert wide == Box(top=0, left=145, height=100, width=110)
    tall = crop_box(400, 90, clip, SampleRng(0, Domain.CLIP, 0))
    assert tall == Box(top=150, left=0, height=100, width=90)


def test_mirroring_moves_nothing_else() -> None:
    plain = [crop_box(240, 320, ClipConfig(), SampleRng(0, Domain.CLIP, s)) for s in range(400)]
    assert not any(box.mirror for box in plain)
    clip = ClipConfig(flip=True)
    mirrored = [crop_box(240, 320, clip, SampleRng(0, Domain.CLIP, s)) for s in range(400)]
    assert 150 < sum(box.mirror for box in mirrored) < 250
    for one, other in zip(plain, mirrored, strict=True):
        assert Box(other.top, other.left, other.height, other.width) == one


# ------------------------------------------------------------------------------------- the whole


def same(one: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    """Whether two draws are equal."""
    return np.array_equal(one[0].indices, other[0].indices) and one[1] == other[1]


def test_draw_is_pure() -> None:
    clip = ClipConfig()
    forward = [draw(Seeds(1), s, ROW, clip) for s in range(50)]
    backward = [draw(Seeds(1), s, ROW, clip) for s in reversed(range(50))][::-1]
    assert all(map(same, forward, backward))
    other_seed = [draw(Seeds(2), s, ROW, clip) for s in range(50)]
    assert not any(map(same, forward, other_seed))
    assert not any(map(same, forward[1:], forward[:-1]))


def test_draw_places_windows_everywhere() -> None:
    clip = ClipConfig(num_frames=16, fps=24.0)
    starts = np.array([draw(Seeds(0), s, ROW, clip)[0].indices[0] for s in range(600)])
    latest = round(window_start_range(120, 50.0, clip) * 50)
    assert starts.min() == 0
    assert starts.max() == latest
    counts, _ = np.histogram(starts, 5, (-0.5, latest + 0.5))
    assert counts.min() > 80


def test_draw_rejects_as_configured() -> None:
    with pytest.raises(ClipError, match="too_short"):
        draw(Seeds(0), 0, {**ROW, "num_frames": 4}, ClipConfig(short="reject"))
    with pytest.raises(ClipError, match="too_slow"):
        draw(Seeds(0), 0, {**ROW, "native_fps": 20.0}, ClipConfig(above_native="reject"))


def test_centre_view() -> None:
    clip = ClipConfig(num_frames=16, fps=25.0)
    window, box = centre_view(ROW, clip)
    assert same((window, box), centre_view(ROW, clip))
    assert box == Box(top=0, left=40, height=240, width=240)
    middle = (window.indices[0] + window.indices[-1]) / 2
    assert middle == pytest.approx(119 / 2, abs=1)
    assert centre_view(ROW, clip, part=0.0)[0].indices[0] == 0
    assert centre_view(ROW, clip, part=1.0)[0].indices[-1] == 119
    tall = centre_view({**ROW, "height": 321, "width": 200}, clip)[1]
    assert tall == Box(top=60, left=0, height=200, width=200)
    mirrored = centre_view(ROW, clip.model_copy(update={"flip": True}))
    assert same(mirrored, (window, box))


# ------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"num_frames": 0}, "num_frames = 0: .*greater than 0"),
        ({"fps": 0.0}, "fps = 0.0: .*greater than 0"),
        ({"fps": -24.0}, "fps = -24.0"),
        ({"size": -1}, "size = -1"),
        ({"num_frames": 16.5}, "num_frames = 16.5"),
        ({"crop_scale": [1.0, 0.5]}, r"crop_scale \(1.0, 0.5\) is not 0 < low <= high"),
        ({"crop_scale": [0.0, 0.5]}, r"crop_scale \(0.0, 0.5\) is not 0 < low <= high"),
        ({"crop_scale": [0.5, 1.5]}, r"crop_scale \(0.5, 1.5\) exceeds the whole frame"),
        ({"crop_scale": [0.5]}, "crop_scale"),
        ({"crop_aspect": [1.1, 0.9]}, r"crop_aspect \(1.1, 0.9\) is not 0 < low <= high"),
        ({"crop_aspect": [-1.0, 0.9]}, r"crop_aspect \(-1.0, 0.9\) is not 0 < low <= high"),
        ({"above_native": "drop"}, "above_native = 'drop'"),
        ({"short": "loop"}, "short = 'loop'"),
        ({"flip": "yes"}, "flip = 'yes'"),
        ({"frames": 16}, "unknown key 'frames'.*num_frames"),
    ],
    ids=str,
)
def test_bad_settings(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(tree, ClipConfig, "here")


def test_bytes_of_a_clip() -> None:
    assert ClipConfig().num_bytes == 16 * 224 * 224 * 3
