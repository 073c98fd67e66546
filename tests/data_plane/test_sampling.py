"""Which clip, which window, which crop: pure functions of (seed, s)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.clips import even, shown

from echojepa.config import validate
from echojepa.data.sampling import (
    Box,
    ClipConfig,
    random_view,
    rows_of,
    square_box,
    window_at,
    windows_of,
)
from echojepa.errors import ClipError, ConfigError
from echojepa.randomness import Seeds

ROW: dict[str, Any] = {
    "num_frames": 120,
    "native_fps": 50.0,
    "duration_seconds": 2.4,
    "height": 240,
    "width": 320,
}


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


@pytest.mark.parametrize("native_fps", [25.0, 30.0, 37.0, 47.0, 50.0, 30000 / 1001])
@pytest.mark.parametrize("start", [0.0, 0.0133, 0.5, 1.23456])
def test_frames_are_the_nearest_in_time(native_fps: float, start: float) -> None:
    clip = ClipConfig(num_frames=16, fps=24.0)
    window = window_at(start, even(120, native_fps), clip)
    indices = shown(window, 120, native_fps)
    wanted = start + np.arange(16) / 24.0
    assert window.seconds == pytest.approx(wanted)
    times = np.arange(120) / native_fps
    distances = np.abs(times[:, None] - wanted[None])  # [native, T]
    chosen = distances[indices, np.arange(16)]
    assert chosen == pytest.approx(distances.min(axis=0), abs=2e-6)
    assert chosen.max() <= 0.5 / native_fps + 2e-6
    assert window.held_frames == 0
    steps = np.diff(indices)
    assert (steps >= 0).all()
    assert set(steps.tolist()) <= {int(native_fps // 24), int(native_fps // 24) + 1}


def test_the_native_rate_takes_every_frame() -> None:
    window = window_at(0.5, even(60, 30.0), ClipConfig(num_frames=16, fps=30.0))
    assert shown(window, 60, 30.0) == list(range(15, 31))


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
    latest = even(num_native, native_fps).latest_start(clip)
    window = window_at(part * latest, even(num_native, native_fps), clip)
    indices = shown(window, num_native, native_fps)
    rounded = np.floor(window.seconds * native_fps + 0.5 + 1e-6 * native_fps)
    assert indices == np.minimum(rounded, num_native - 1).astype(int).tolist()
    if latest > 0:
        assert window.held_frames == 0
    if window.held_frames:
        assert set(indices[-window.held_frames :]) == {num_native - 1}


def test_start_range() -> None:
    clip = ClipConfig(num_frames=16, fps=24.0)
    assert even(50, 25.0).latest_start(clip) == pytest.approx(49 / 25 - 15 / 24)
    assert even(16, 24.0).latest_start(clip) == 0.0
    assert even(5, 25.0).latest_start(clip) == 0.0


def test_a_short_video_holds_its_last_frame() -> None:
    window = window_at(0.0, even(10, 24.0), ClipConfig(num_frames=16, fps=24.0))
    assert shown(window, 10, 24.0) == [*range(10), *[9] * 6]
    assert window.held_frames == 6


def test_a_short_video_is_rejected() -> None:
    clip = ClipConfig(num_frames=16, fps=24.0, short="reject")
    assert window_at(0.0, even(16, 24.0), clip).held_frames == 0
    with pytest.raises(ClipError) as caught:
        window_at(0.0, even(15, 24.0), clip)
    assert str(caught.value) == "sample: too_short: 15 frames at 24 fps"


def test_a_still() -> None:
    window = window_at(0.0, even(1, 30.0), ClipConfig())
    assert shown(window, 1, 30.0) == [0] * 16
    assert window.held_frames == 15
    with pytest.raises(ClipError) as caught:
        window_at(0.0, even(1, 30.0), ClipConfig(short="reject"))
    assert str(caught.value) == "sample: too_short: 1 frames at 30 fps"


def test_a_dicom_still_is_short_whatever_the_window() -> None:
    """A still without a rate counts as one frame per second: see `dicom_time`."""
    clip = ClipConfig(num_frames=8, fps=24.0)
    assert window_at(0.0, even(1, 1.0), clip).held_frames == 7
    with pytest.raises(ClipError, match="too_short"):
        window_at(0.0, even(1, 1.0), clip.model_copy(update={"short": "reject"}))


def test_a_rate_above_the_native_one() -> None:
    repeating = ClipConfig(num_frames=8, fps=50.0)
    window = window_at(0.0, even(30, 25.0), repeating)
    assert shown(window, 30, 25.0) == [0, 1, 1, 2, 2, 3, 3, 4]  # halves round up
    rejecting = repeating.model_copy(update={"above_native": "reject"})
    with pytest.raises(ClipError) as caught:
        window_at(0.0, even(30, 25.0), rejecting)
    assert str(caught.value) == "sample: too_slow: 25 fps, 50 are wanted"
    for fps in (50.0, 50.0 * (1 - 1e-7)):
        assert shown(window_at(0.0, even(30, fps), rejecting), 30, fps) == list(range(8))


def same(one: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    """Whether two draws are equal."""
    return np.array_equal(one[0].seconds, other[0].seconds) and one[1] == other[1]


def test_golden_view() -> None:
    """It must never change: a run that is resumed would see other samples."""
    window, box = random_view(Seeds(3), 41, ROW, ClipConfig(num_frames=8))
    assert shown(window, 120, 50.0) == [64, 67, 69, 71, 73, 75, 77, 79]
    assert box == Box(top=44, left=43, height=194, width=205)


def test_draw_is_pure() -> None:
    clip = ClipConfig()
    forward = [random_view(Seeds(1), s, ROW, clip) for s in range(50)]
    backward = [random_view(Seeds(1), s, ROW, clip) for s in reversed(range(50))][::-1]
    assert all(map(same, forward, backward))
    other_seed = [random_view(Seeds(2), s, ROW, clip) for s in range(50)]
    assert not any(map(same, forward, other_seed))
    assert not any(map(same, forward[1:], forward[:-1]))


def test_draw_places_windows_everywhere() -> None:
    clip = ClipConfig(num_frames=16, fps=24.0)
    starts = np.array([random_view(Seeds(0), s, ROW, clip)[0].seconds[0] for s in range(600)])
    latest = even(120, 50.0).latest_start(clip)
    assert 0 <= starts.min() < 0.01 and latest - 0.01 < starts.max() <= latest
    counts, _ = np.histogram(starts, 5, (0, latest))
    assert counts.min() > 80


def test_draw_rejects_as_configured() -> None:
    with pytest.raises(ClipError, match="too_short"):
        random_view(
            Seeds(0),
            0,
            {**ROW, "num_frames": 4, "duration_seconds": 0.08},
            ClipConfig(short="reject"),
        )
    with pytest.raises(ClipError, match="too_slow"):
        random_view(Seeds(0), 0, {**ROW, "native_fps": 20.0}, ClipConfig(above_native="reject"))


def test_windows_of_and_the_central_square() -> None:
    clip = ClipConfig(num_frames=16, fps=25.0)
    (window,) = windows_of(ROW, clip, 1)
    box = square_box(ROW["height"], ROW["width"])
    assert same((window, box), (windows_of(ROW, clip, 1)[0], box))
    assert box == Box(top=0, left=40, height=240, width=240)
    assert window.seconds[[0, -1]].mean() == pytest.approx(119 / 50 / 2)
    assert windows_of(ROW, clip, 2)[0].seconds[0] == 0
    assert windows_of(ROW, clip, 2)[1].seconds[-1] == pytest.approx(119 / 50)
    assert square_box(321, 200) == Box(top=60, left=0, height=200, width=200)
    (mirrored,) = windows_of(ROW, clip.model_copy(update={"flip": True}), 1)
    assert same((mirrored, box), (window, box))


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
