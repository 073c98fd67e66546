"""A weighted mixture of data sets: a deterministic interleave, s to (data set, s_d).

The samples 0, 1, 2, ... of a run are cut into periods. Every period holds each data set as often as
its share says, spread as evenly as can be; s_d counts the samples of data set d, so that each data
set has epochs of its own, long or short, in each of which every clip comes once. Nothing is drawn
with replacement, and nothing has a memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from echojepa.config import Strict
from echojepa.randomness import Permutation, Seeds

PERIOD = 1000
"""Samples per period: shares are exact to within one per mille."""


@dataclass(frozen=True)
class Part:
    """The clips of one data set: consecutive rows of the clip table."""

    name: str
    first_row: int
    num_clips: int
    per_period: int


class MixtureConfig(Strict):
    """What share of the samples each data set gets, whatever its size."""

    by: str = "population"
    """Text column of the manifest whose values name the data sets."""
    shares: dict[str, float] = Field(min_length=1)
    """Weight of each data set; they need not add up to 1. Rows of data sets that are not named are
    left out."""

    @model_validator(mode="after")
    def _all_there(self) -> MixtureConfig:
        for name, count in self.per_period().items():
            if count < 1:
                raise ValueError(f"the share of {name!r} is below 1 in {PERIOD} samples")
        return self

    def per_period(self) -> dict[str, int]:
        """Samples of each data set in a period, by largest remainder, in order of names."""
        if min(self.shares.values()) <= 0:
            raise ValueError("shares are positive numbers; leave out what is not wanted")
        names = sorted(self.shares)
        exact = np.array([self.shares[name] for name in names]) * PERIOD / sum(self.shares.values())
        counts = np.floor(exact).astype(np.int64)
        largest = np.argsort(counts - exact, kind="stable")[: PERIOD - counts.sum()]
        counts[largest] += 1
        return dict(zip(names, counts.tolist(), strict=True))

    def parts(self, sizes: dict[str, int]) -> list[Part]:
        """The data sets, given the number of clips of each, in order of names."""
        parts, first = [], 0
        for name, per_period in self.per_period().items():
            parts.append(Part(name, first, sizes[name], per_period))
            first += sizes[name]
        return parts


class Mixture:
    """Which clip of which data set a sample is."""

    def __init__(self, parts: list[Part]) -> None:
        self.parts = parts
        counts = [part.per_period for part in parts]
        self._counts = np.array(counts)
        self._period = sum(counts)
        due = np.concatenate([(np.arange(n) + 0.5) / n for n in counts])
        owner = np.repeat(np.arange(len(parts)), counts)
        self._owner = owner[np.lexsort((owner, due))]
        """Data set of each position in a period, [period]."""
        self._positions = [np.flatnonzero(self._owner == d) for d in range(len(parts))]
        self._rank = np.empty(self._period, np.int64)
        """How many samples of the same data set come before it in the period, [period]."""
        for positions in self._positions:
            self._rank[positions] = np.arange(len(positions))

    def split(self, s: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Data set of each global sample index, and its number in there: [M] to [M] and [M]."""
        period, position = np.divmod(s, self._period)
        owner = self._owner[position]
        return owner, period * self._counts[owner] + self._rank[position]

    def rows(self, s: NDArray[np.int64], seeds: Seeds) -> NDArray[np.int64]:
        """Row of the clip table for each global sample index: [M] to [M]."""
        rows = np.empty_like(s)
        owner, number = self.split(s)
        for d, part in enumerate(self.parts):
            epoch, position = np.divmod(number, part.num_clips)
            for e in np.unique(epoch[owner == d]).tolist():
                here = (owner == d) & (epoch == e)
                seed = seeds.at(self._sample(d, e * part.num_clips))
                order = Permutation(part.num_clips, seed, e * len(self.parts) + d)
                rows[here] = part.first_row + order(position[here])
        return rows

    def _sample(self, d: int, number: int) -> int:
        """Global sample index of a data set's sample: the inverse of `split`."""
        period, rank = divmod(number, self.parts[d].per_period)
        return period * self._period + int(self._positions[d][rank])
