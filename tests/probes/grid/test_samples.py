"""Samples in arrays: slots of views, absent ones, batches of rows in any order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from echojepa.errors import BadDataError
from echojepa.probes.grid.samples import (
    ArraySamples,
    SampleShape,
    in_batches,
    pool_slots,
    read_batch,
)

TOKENS = np.random.default_rng(0).normal(size=(9, 4, 3, 2)).astype(np.float32)
PRESENT = np.arange(36).reshape(9, 4) % 5 != 1


def test_a_batch_has_the_rows_asked_for_and_zeros_where_nothing_is() -> None:
    samples = ArraySamples(TOKENS, PRESENT, ("A4C", "PLAX"))
    assert SampleShape.of(samples) == SampleShape(views=("A4C", "PLAX"), clips=2, tokens=3, width=2)
    before = TOKENS.copy()
    batch = samples.batch(np.array([7, 2, 7]))
    assert batch.present.tolist() == PRESENT[[7, 2, 7]].tolist()
    expected = TOKENS[[7, 2, 7]] * PRESENT[[7, 2, 7], :, None, None]
    assert batch.tokens.dtype == torch.float32
    np.testing.assert_array_equal(batch.tokens.numpy(), expected)
    np.testing.assert_array_equal(TOKENS, before)


@pytest.mark.parametrize(
    ("stored", "given"), [("float16", torch.float32), ("float64", torch.float64)]
)
def test_halves_become_single_and_doubles_stay(stored: str, given: torch.dtype) -> None:
    assert ArraySamples(TOKENS.astype(stored)).batch(np.arange(2)).tokens.dtype == given


def test_arrays_that_do_not_fit_are_refused() -> None:
    for tokens, present, views in (
        (TOKENS, PRESENT[:5], ("",)),
        (TOKENS, PRESENT, ("a", "b", "c")),
        (TOKENS[0], None, ("",)),
    ):
        with pytest.raises(ValueError, match="are not"):
            ArraySamples(tokens, present, views)


def test_a_bad_sample_is_named() -> None:
    tokens = TOKENS.copy()
    tokens[3, 0, 1, 1] = np.nan
    with pytest.raises(BadDataError, match="sample 3 has features that are not finite"):
        read_batch(ArraySamples(tokens), np.array([1, 3]))
    absent = np.arange(36).reshape(9, 4) >= 0
    absent[3, 0] = False
    read_batch(ArraySamples(tokens, absent), np.array([1, 3]))
    absent[5] = False
    with pytest.raises(BadDataError, match="sample 5 has no clip"):
        read_batch(ArraySamples(tokens, absent), np.array([4, 5]))


def test_batches_are_even_and_in_order() -> None:
    index = np.arange(100, 117)
    parts = list(in_batches(index, 8))
    assert [len(part) for part in parts] == [6, 6, 5]
    np.testing.assert_array_equal(np.concatenate(parts), index)
    assert not list(in_batches(index[:0], 8))


def test_pooled_slots_are_the_means_of_their_tokens() -> None:
    samples = ArraySamples(TOKENS, PRESENT, ("A4C", "PLAX"))
    pooled = pool_slots(samples, np.array([8, 0, 4]), 2, torch.float64)
    assert SampleShape.of(pooled) == SampleShape(views=("A4C", "PLAX"), clips=2, tokens=1, width=2)
    batch = pooled.batch(np.arange(3))
    rows = [8, 0, 4]
    assert batch.present.tolist() == PRESENT[rows].tolist()
    expected = TOKENS[rows].mean(axis=2, dtype=np.float64) * PRESENT[rows][..., None]
    np.testing.assert_allclose(batch.tokens[:, :, 0].numpy(), expected, atol=1e-12)
