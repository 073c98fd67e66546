"""Statistics of features: of the whole picture, and the same however the batch is cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from echojepa.runs.statistics import NUM_TOKENS, drawn_tokens, feature_moments, spread_of

GRID, FRAMES = 14, 8
NUM_PLACES = GRID * GRID
WIDTH = 64


def features_of(samples: NDArray[np.int64]) -> torch.Tensor:
    """As of a heart: spread in the middle of the picture, the same everywhere at its edge.

    [B, FRAMES * GRID * GRID, WIDTH]; a clip has its own, in whatever batch it is.
    """
    row, column = np.divmod(np.arange(NUM_PLACES), GRID)
    middle = (np.hypot(row - 6.5, column - 6.5) < 4).astype(np.float32)
    found = []
    for s in samples:
        rng = np.random.default_rng(int(s))
        own = rng.normal(size=(FRAMES, NUM_PLACES, WIDTH)).astype(np.float32)
        directions = np.linspace(1, 0.1, WIDTH, dtype=np.float32)
        found.append((own * directions * middle[:, None]).reshape(-1, WIDTH))
    return torch.from_numpy(np.stack(found))


def statistics(num_ranks: int, micro: int, first: int, step: int = 5) -> dict[str, float]:
    """Of the last micro-batches of so many ranks, as the watcher computes them."""
    per_clip = -(-NUM_TOKENS // (num_ranks * micro))
    total = np.zeros(1 + WIDTH + WIDTH**2)
    for rank in range(num_ranks):
        samples = np.arange(first + rank * micro, first + (rank + 1) * micro)
        weights = torch.ones(micro)
        total += feature_moments(features_of(samples), weights, samples, step, per_clip)
    return spread_of(total, WIDTH)


def test_any_cut_of_a_batch_gives_the_same() -> None:
    found = [statistics(ranks, micro, first=0) for ranks, micro in ((8, 16), (4, 32), (2, 64))]
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-9)


def test_other_clips_give_the_same_within_sampling_error() -> None:
    """With accumulation the last micro-batches are fewer clips: as many tokens are drawn."""
    whole = statistics(2, 64, first=0)
    few = statistics(2, 16, first=1000)
    for name in ("feature_std", "effective_rank"):
        assert few[name] == pytest.approx(whole[name], rel=0.03)


def test_every_place_is_seen() -> None:
    """Every k-th token would be the same few places of every frame, whatever the step."""
    drawn = drawn_tokens(np.arange(128), 3, FRAMES * NUM_PLACES, 64)
    assert drawn.shape == (128, 64)
    assert all(len(set(row)) == 64 for row in drawn.tolist())
    counts = np.bincount(drawn.ravel() % NUM_PLACES, minlength=NUM_PLACES)
    expected = 128 * 64 / NUM_PLACES
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)
    frames = np.bincount(drawn.ravel() // NUM_PLACES, minlength=FRAMES)
    assert np.abs(frames - 1024).max() < 5 * 32


def test_tokens_follow_the_step_and_the_clip_alone() -> None:
    samples = np.array([7, 8, 2**40])
    one = drawn_tokens(samples, 3, 1000, 20)
    assert np.array_equal(drawn_tokens(samples[::-1], 3, 1000, 20)[::-1], one)
    assert not np.array_equal(drawn_tokens(samples, 4, 1000, 20), one)
    assert set(one[0]) != set(one[1])
    assert np.array_equal(drawn_tokens(samples, 3, 6, 20), np.tile(np.arange(6), (3, 1)))


def test_clips_without_weight_are_left_out() -> None:
    samples = np.arange(6)
    features = features_of(samples)
    weights = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    found = feature_moments(features, weights, samples, 1, 30)
    kept = weights > 0
    expected = feature_moments(features[kept], weights[kept], samples[kept.numpy()], 1, 30)
    assert found == pytest.approx(expected)
    assert found[0] == 4 * 30


def test_known_spreads() -> None:
    """Normal features of three equal directions have rank 3; constant ones have 1 and no spread."""
    rng = np.random.default_rng(0)
    flat = np.zeros((64, 100, 8), np.float32)
    flat[..., :3] = rng.normal(size=(64, 100, 3))
    samples = np.arange(64)

    def found(features: np.ndarray) -> dict[str, float]:
        tensor = torch.from_numpy(features)
        return spread_of(feature_moments(tensor, torch.ones(64), samples, 0, 100), 8)

    three = found(flat)
    assert three["effective_rank"] == pytest.approx(3, rel=0.01)
    assert three["feature_std"] == pytest.approx(3 / 8, rel=0.02)
    assert three["feature_std_min"] == 0
    assert found(np.ones_like(flat))["feature_std"] == pytest.approx(0, abs=1e-6)


def test_features_that_are_not_finite_say_so() -> None:
    """An eigenvalue solver would raise, and end the run."""
    features = torch.full((4, 10, 8), float("nan"))
    moments = feature_moments(features, torch.ones(4), np.arange(4), 0, 5)
    assert all(np.isnan(value) for value in spread_of(moments, 8).values())
