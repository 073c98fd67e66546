"""One resized crop in uint8: exact where nothing is resized, faithful where something is."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from echojepa.data.augment import crop_resize
from echojepa.data.sampling import Box


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
