"""Frames resized as the published preprocessing resizes them."""

from __future__ import annotations

import numpy as np
import torch

from echojepa.encoders.pixels import resized

CLIPS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16, 3), np.uint8))


def test_frames_of_the_right_size_keep_their_values_in_order() -> None:
    found = resized(CLIPS, 16)
    assert found.shape == (2, 3, 3, 16, 16) and found.dtype == torch.float32
    assert torch.equal(found[1, 2, 0], CLIPS[1, 0, :, :, 2].float())


def test_a_smaller_frame_takes_the_pixels_around_its_centres_and_smooths_nothing() -> None:
    """A quarter of the size: the mean of the four pixels in the middle of every 4 x 4."""
    found = resized(CLIPS, 4)
    inner = CLIPS.float().unflatten(3, (4, 4)).unflatten(2, (4, 4))[:, :, :, 1:3, :, 1:3]
    assert torch.allclose(found, inner.mean(dim=(3, 5)).permute(0, 4, 1, 2, 3), atol=1e-3)


def test_frames_that_are_not_square_become_square() -> None:
    assert resized(CLIPS[:, :, :12], 8).shape == (2, 3, 3, 8, 8)
