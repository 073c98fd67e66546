"""Random numbers that never change: golden values, independent streams, a keyed bijection."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echojepa.randomness import Domain, Permutation, SampleRng


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


def test_many_floats_are_those_drawn_one_by_one() -> None:
    one, many = (SampleRng(7, Domain.CORRUPTION, 2**63 - 1) for _ in range(2))
    assert many.uniforms(9).tolist() == [one.uniform() for _ in range(9)]
    assert many.uniform() == one.uniform()


def test_domains_keep_their_numbers() -> None:
    numbers = {domain.name: domain.value for domain in Domain}
    assert numbers == {"ORDER": 1, "CLIP": 2, "MASK": 3, "CORRUPTION": 4, "DIRECTION": 5}


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
