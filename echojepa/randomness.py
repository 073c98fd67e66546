"""Random numbers without state: seeds, counter-based generators, a keyed permutation.

Every number is a pure function of a seed, of what it is for, and of a counter (the global sample
index s, say). Any process computes the same numbers, in any order and after any restart.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 6
_SEED_STEP = 0x9E3779B97F4A7C15
_MIX = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))


class Domain(IntEnum):
    """What a random stream is for, so that no two uses share numbers."""

    ORDER = 1
    CLIP = 2
    MASK = 3
    CORRUPTION = 4
    DIRECTION = 5


@dataclass(frozen=True)
class Seeds:
    """The seed of a run, and the samples at which it was changed to lead out of a collapse.

    Windows, crops and masks follow a change at once. The order of an epoch is keyed by the seed at
    its first sample, so that no epoch is begun in one order and ended in another.
    """

    base: int
    changes: tuple[int, ...] = ()
    """Global sample indices from which on another seed holds, as often as it was changed."""

    def at(self, s: int) -> int:
        """The seed of sample s."""
        passed = sum(change <= s for change in self.changes)
        return (self.base + passed * _SEED_STEP) % 2**63


class SampleRng:
    """Counter-based random numbers of one sample, from raw Philox-4x64 output (Salmon et al. 2011).

    Only raw 64-bit output is used, whose stream NumPy guarantees forever; the mapping to floats
    and integers is ours, so a sample does not change with the NumPy version.
    """

    def __init__(self, seed: int, domain: Domain, s: int) -> None:
        key = np.array([seed, int(domain)], np.uint64)  # a list turns to floats from 2^63 on
        self._bits = np.random.Philox(key=key, counter=[0, 0, 0, s])

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A float in [low, high)."""
        return low + (high - low) * ((int(self._bits.random_raw()) >> 11) * 2.0**-53)

    def integer(self, n: int) -> int:
        """An integer in [0, n); the bias of the 64-bit product is below n / 2^64."""
        return (int(self._bits.random_raw()) * n) >> 64

    def uniforms(self, n: int) -> NDArray[np.float64]:
        """`n` independent floats in [0, 1), [n]: those of `n` calls of `uniform`."""
        return np.asarray((self.raw(n) >> np.uint64(11)) * 2.0**-53, np.float64)

    def raw(self, n: int) -> NDArray[np.uint64]:
        """`n` independent 64-bit numbers."""
        return np.asarray(self._bits.random_raw(n), np.uint64)


class Permutation:
    """A keyed bijection of [0, n) in O(1) memory: a Feistel network with cycle walking.

    Black and Rogaway, "Ciphers with arbitrary finite domains" (2002). Vectorised over indices.
    """

    def __init__(self, n: int, seed: int, epoch: int) -> None:
        if n < 1:
            raise ValueError(f"a permutation of {n} elements does not exist")
        self.n = n
        self._half_bits = max(1, ((n - 1).bit_length() + 1) // 2)
        keys = SampleRng(seed, Domain.ORDER, epoch)
        self._keys = keys.raw(_ROUNDS)

    def __call__(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions [M] in [0, n) to elements [M] in [0, n)."""
        # The network permutes [0, 4^half_bits), at most four times n. What lands outside [0, n) is
        # encrypted again until it is inside: following a permutation's cycle from inside, one comes
        # back inside, and no two walks meet. So the whole is a permutation of [0, n).
        out = self._encrypt(index.astype(np.uint64))
        outside = out >= self.n
        while outside.any():
            out[outside] = self._encrypt(out[outside])
            outside = out >= self.n
        return out.astype(np.int64)

    def _encrypt(self, value: NDArray[np.uint64]) -> NDArray[np.uint64]:
        shift, mask = np.uint64(self._half_bits), np.uint64((1 << self._half_bits) - 1)
        left, right = value >> shift, value & mask
        for key in self._keys:
            left, right = right, left ^ (mix(right ^ key) & mask)
        return (left << shift) | right


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The 64-bit finaliser of MurmurHash3: every input bit moves every output bit."""
    for factor in _MIX:
        x = (x ^ (x >> np.uint64(33))) * factor
    return x ^ (x >> np.uint64(33))
