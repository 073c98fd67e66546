"""Mixtures: shares, epochs of each data set, and no memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from echojepa.data.mixture import PERIOD, Mixture, MixtureConfig
from echojepa.randomness import Seeds

SHARES = st.dictionaries(st.sampled_from("abcdef"), st.floats(0.01, 1), min_size=1, max_size=6)


def mixture_of(shares: dict[str, float], sizes: list[int]) -> Mixture:
    """Data sets of these sizes, in order of names."""
    config = MixtureConfig(shares=shares)
    return Mixture(config.parts(dict(zip(sorted(shares), sizes, strict=True))))


@given(shares=SHARES)
@settings(max_examples=50, deadline=None)
def test_shares_are_kept_in_every_stretch(shares: dict[str, float]) -> None:
    """To one per mille in a period; in any stretch to a sample and one for each data set."""
    mixture = mixture_of(shares, [7] * len(shares))
    owner, _ = mixture.split(np.arange(2 * PERIOD))
    for d, name in enumerate(sorted(shares)):
        wanted = shares[name] / sum(shares.values())
        assert abs((owner == d).mean() - wanted) <= 1 / PERIOD
        drift = np.cumsum(owner == d) - wanted * np.arange(1, 2 * PERIOD + 1)
        assert np.abs(drift).max() <= 2 + len(shares)


def test_each_data_set_has_its_own_epochs() -> None:
    mixture = mixture_of({"large": 0.25, "small": 0.75}, [50, 9])
    s = np.arange(4000)
    rows = mixture.rows(s, Seeds(5))
    large, small = rows[rows < 50], rows[rows >= 50]
    assert (len(large), len(small)) == (1000, 3000)
    for drawn, first, size in ((large, 0, 50), (small, 50, 9)):
        epochs = drawn[: len(drawn) // size * size].reshape(-1, size)
        assert all(sorted(e) == list(range(first, first + size)) for e in epochs.tolist())
        assert len({tuple(e) for e in epochs.tolist()}) > 0.9 * len(epochs)


@given(first=st.integers(0, 10**12), count=st.integers(1, 60))
@settings(max_examples=30, deadline=None)
def test_a_sample_does_not_depend_on_its_neighbours(first: int, count: int) -> None:
    mixture, seeds = mixture_of({"a": 1, "b": 2, "c": 4}, [11, 5, 300]), Seeds(2)
    s = np.arange(first, first + count)
    rows = mixture.rows(s, seeds)
    order = np.random.default_rng(0).permutation(count)
    assert np.array_equal(mixture.rows(s[order], seeds), rows[order])
    assert mixture.rows(s[-1:], seeds)[0] == rows[-1]
    owner, number = mixture.split(s)
    back = [mixture._sample(d, n) for d, n in zip(owner.tolist(), number.tolist(), strict=True)]
    assert back == s.tolist()


def test_a_new_seed_changes_no_epoch_that_has_begun() -> None:
    mixture = mixture_of({"a": 1, "b": 1}, [40, 10])
    s = np.arange(400)
    before, after = mixture.rows(s, Seeds(5)), mixture.rows(s, Seeds(5, (101,)))
    owner, number = mixture.split(s)
    epoch = number // np.array([40, 10])[owner]
    differs = before != after
    assert not differs[s < 101].any()
    assert not differs[(owner == 0) & (epoch == 1)].any(), "begun at sample 80"
    assert differs[(owner == 0) & (epoch == 2)].any()
    assert differs[(owner == 1) & (epoch >= 6)].any()


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({}, "at least 1"),
        ({"a": 0.0, "b": 1.0}, "positive"),
        ({"a": 1e-6, "b": 1.0}, "'a' is below 1 in 1000"),
    ],
)
def test_shares_that_make_no_sense(shares: dict[str, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MixtureConfig(shares=shares)
