"""What heads learn from: tokens of the clips of one or several views of a sample.

A sample is a clip, a video or a study. Its clips lie in slots, slot = view * C + clip, and slots
may be absent.

Shapes: n samples, B samples of a batch, V views, C clips of a view, S = V C slots, N tokens of a
clip, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from echojepa.config import Strict
from echojepa.errors import BadDataError


class Batch(NamedTuple):
    """Some samples."""

    tokens: torch.Tensor
    """[B, S, N, D], float32 (or float64); what is absent holds zeros, and no head looks at it."""
    present: torch.Tensor
    """[B, S], bool."""


class Samples(Protocol):
    """Tokens of samples, in memory or on disk."""

    @property
    def num_samples(self) -> int:
        """n."""

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the V views; a single unnamed one is `("",)`."""

    @property
    def clips(self) -> int:
        """Clips of every view, C."""

    @property
    def tokens(self) -> int:
        """Tokens of a clip, N."""

    @property
    def width(self) -> int:
        """Channels of a token, D."""

    def batch(self, index: NDArray[np.int64]) -> Batch:
        """The samples at these positions, in their order."""


class SampleShape(Strict):
    """What samples must agree in to be shown to the same head."""

    views: tuple[str, ...] = Field(min_length=1)
    """Names, in the order of the slots."""
    clips: int = Field(gt=0)
    """Of every view, C."""
    tokens: int = Field(gt=0)
    """Of a clip, N."""
    width: int = Field(gt=0)
    """Of a token, D."""

    @classmethod
    def of(cls, samples: Samples) -> SampleShape:
        """That of some samples."""
        return cls(
            views=samples.views, clips=samples.clips, tokens=samples.tokens, width=samples.width
        )


class ArraySamples:
    """Samples in arrays, which may be memory-mapped: a batch reads its own rows only."""

    def __init__(
        self,
        values: NDArray[Any],
        present: NDArray[np.bool_] | None = None,
        views: tuple[str, ...] = ("",),
    ) -> None:
        """Keep the arrays, without a copy.

        Args:
            values: tokens [n, S, N, D]; float16 becomes float32 batch by batch.
            present: [n, S]; null is all.
            views: names; the S slots are divided evenly among them.

        Raises:
            ValueError: the arrays and the views do not fit together.
        """
        present = np.ones(values.shape[:2], bool) if present is None else present
        if values.ndim != 4 or present.shape != values.shape[:2] or values.shape[1] % len(views):
            raise ValueError(
                f"tokens {values.shape}, present {present.shape} and {len(views)} views "
                "are not [n, V C, N, D], [n, V C] and V"
            )
        self.views = views
        self.num_samples, slots, self.tokens, self.width = values.shape
        self.clips = slots // len(views)
        self._values = values
        self._present = present

    def batch(self, index: NDArray[np.int64]) -> Batch:
        """See `Samples`."""
        values, present = self._values[index], self._present[index]
        values = np.asarray(values, np.result_type(values.dtype, np.float32))
        values[~present] = 0
        return Batch(torch.from_numpy(values), torch.from_numpy(present))


def read_batch(samples: Samples, index: NDArray[np.int64]) -> Batch:
    """Some samples, checked.

    Raises:
        BadDataError: a sample has no clip that is present, or its features are not finite.
    """
    batch = samples.batch(index)
    # One sum per slot: not finite if any token is not.
    bad = batch.present & ~batch.tokens.sum(dim=(2, 3)).isfinite()
    for what, wrong in (
        ("has no clip that is present", ~batch.present.any(dim=1)),
        ("has features that are not finite", bad.any(dim=1)),
    ):
        if wrong.any():
            first = int(index[int(wrong.nonzero()[0])])
            raise BadDataError(f"sample {first} {what}", "Leave it out, or compute it again.")
    return batch


def in_batches(index: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """Positions in order, in batches of at most `size` whose sizes differ by one at most."""
    yield from np.array_split(index, -(-len(index) // size)) if len(index) else ()


def pool_slots(
    samples: Samples, index: NDArray[np.int64], size: int, dtype: torch.dtype
) -> ArraySamples:
    """Some samples with one token per slot, the mean of its tokens, in memory.

    Args:
        size: samples read at a time.
        dtype: of the means.

    Raises:
        BadDataError: see `read_batch`.
    """
    read = (read_batch(samples, part) for part in in_batches(index, size))
    parts = [(b.tokens.to(dtype).mean(dim=2, keepdim=True), b.present) for b in read]
    tokens, present = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
    return ArraySamples(tokens, present, samples.views)
