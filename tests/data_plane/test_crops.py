"""Random crops, and one resize straight to the target size."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from echojepa.data.sampling import (
    Box,
    ClipConfig,
    crop_box,
    crop_resize,
)
from echojepa.randomness import Domain, SampleRng


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


def noise(t: int, height: int, width: int) -> np.ndarray:
    """Frames [T, H, W, 3] of independent pixels."""
    return np.random.default_rng(0).integers(0, 256, (t, height, width, 3), dtype=np.uint8)


def smooth(t: int, height: int, width: int) -> np.ndarray:
    """Frames [T, H, W, 3] without fine detail."""
    small = noise(t, height // 8, width // 8)
    return np.stack([cv2.resize(f, (width, height), interpolation=cv2.INTER_CUBIC) for f in small])


def by_torch(frames: np.ndarray, box: Box, size: int, *, antialias: bool) -> np.ndarray:
    """The same crop through torch in float32."""
    bottom, right = box.top + box.height, box.left + box.width
    cropped = frames[:, box.top : bottom, box.left : right].astype(np.float32)
    pixels = torch.from_numpy(cropped).permute(0, 3, 1, 2)
    resized = F.interpolate(pixels, (size, size), mode="bilinear", antialias=antialias)
    return resized.permute(0, 2, 3, 1).numpy()


def test_the_whole_frame_at_its_own_size_is_untouched() -> None:
    frames = noise(5, 32, 32)
    out = crop_resize(frames, Box(0, 0, 32, 32), 32)
    assert out.dtype == np.uint8
    assert np.array_equal(out, frames)


def test_a_crop_of_the_target_size_is_a_slice() -> None:
    frames = noise(3, 40, 60)
    before = frames.copy()
    out = crop_resize(frames, Box(7, 21, 32, 32), 32)
    assert np.array_equal(out, frames[:, 7:39, 21:53])
    assert np.array_equal(frames, before)


def test_mirror() -> None:
    frames = noise(3, 40, 60)
    out = crop_resize(frames, Box(7, 21, 32, 32, mirror=True), 32)
    assert np.array_equal(out, frames[:, 7:39, 21:53][:, :, ::-1])
    plain = crop_resize(smooth(2, 40, 64), Box(3, 5, 30, 33), 48)
    mirrored = crop_resize(smooth(2, 40, 64), Box(3, 5, 30, 33, mirror=True), 48)
    difference = plain[:, :, ::-1].astype(int) - mirrored
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("box", [Box(0, 0, 40, 64), Box(3, 5, 30, 33), Box(11, 2, 25, 48)], ids=str)
def test_enlarging_is_bilinear(box: Box) -> None:
    for frames in (noise(2, 40, 64), smooth(2, 40, 64)):
        difference = crop_resize(frames, box, 96) - by_torch(frames, box, 96, antialias=True)
        assert np.abs(difference).mean() < 0.5
        assert np.abs(difference).max() < 2.0


@pytest.mark.parametrize("box", [Box(0, 0, 240, 320), Box(10, 20, 150, 161)], ids=str)
def test_shrinking_agrees_with_an_antialiased_resize(box: Box) -> None:
    frames = smooth(2, 240, 320)
    difference = crop_resize(frames, box, 112) - by_torch(frames, box, 112, antialias=True)
    assert np.abs(difference).mean() < 2.0


def test_shrinking_by_a_whole_factor_is_the_mean_of_the_blocks() -> None:
    frames = noise(2, 96, 96)
    out = crop_resize(frames, Box(0, 0, 96, 96), 32)
    means = frames.reshape(2, 32, 3, 32, 3, 3).mean(axis=(2, 4))
    assert np.abs(out - means).max() <= 0.51


def test_shrinking_does_not_alias() -> None:
    board = (np.indices((120, 120)).sum(axis=0) % 2 * 255).astype(np.uint8)
    frames = np.repeat(board[None, :, :, None], 3, axis=3)
    out = crop_resize(frames, Box(0, 0, 120, 120), 50).astype(int)
    naive = by_torch(frames, Box(0, 0, 120, 120), 50, antialias=False)
    assert np.abs(out - 127.5).max() < 32
    assert np.abs(naive - 127.5).max() > 64  # what averaging saves us from


def test_frames_do_not_mix() -> None:
    frames = noise(4, 30, 30)
    together = crop_resize(frames, Box(2, 3, 20, 21), 24)
    for i in range(4):
        assert np.array_equal(crop_resize(frames[i : i + 1], Box(2, 3, 20, 21), 24)[0], together[i])
