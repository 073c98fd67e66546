"""The record of what was trained on.

Every rank appends one line per step to a file of its own, naming the global sample indices it
really received (as ranges) and a digest of the clips that came with them. `runs.audit` proves from
these files that nothing was lost or doubled.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from echojepa.data.stream import PADDING
from echojepa.durable import flush
from echojepa.train.feed import StepBatch


class RecordLine(TypedDict):
    """What a rank notes of a step."""

    step: int
    samples: list[list[int]]
    """Global sample indices received, as half-open ranges in the order of arrival."""
    clips: str
    """Digest of the clip ids that came with them."""
    unread: list[int]
    """Samples whose clip could not be read (weight 0)."""
    applied: bool
    """False for a dropped step."""


def as_ranges(samples: Iterable[int]) -> list[list[int]]:
    """[5, 6, 7, 11] to [[5, 8], [11, 12]]: half-open ranges, in the order of arrival."""
    ranges: list[list[int]] = []
    for s in samples:
        if ranges and ranges[-1][1] == s:
            ranges[-1][1] = s + 1
        else:
            ranges.append([s, s + 1])
    return ranges


def from_ranges(ranges: Iterable[Iterable[int]]) -> NDArray[np.int64]:
    """The inverse of `as_ranges`."""
    parts = [np.arange(*bounds, dtype=np.int64) for bounds in ranges]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def clip_digest(clip_ids: Iterable[str]) -> str:
    """A digest of clip ids in order."""
    return hashlib.blake2b("\n".join(clip_ids).encode(), digest_size=8).hexdigest()


class SampleRecord:
    """The record of one rank in one attempt; a context manager."""

    def __init__(self, folder: Path, attempt: int, rank: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        name = f"attempt_{attempt:04d}_rank_{rank:05d}.jsonl"
        self._file = (folder / name).open("a", buffering=1)

    def __enter__(self) -> SampleRecord:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def sync(self) -> None:
        """Wait until all that was noted is on disk: a checkpoint is about to count on it."""
        self._file.flush()
        os.fsync(self._file.fileno())
        flush(self._folder)

    def append(self, batch: StepBatch, *, applied: bool) -> None:
        """Note a finished step."""
        self._file.write(json.dumps(describe(batch, applied=applied)) + "\n")


def describe(batch: StepBatch, *, applied: bool) -> RecordLine:
    """The record of one step of one rank."""
    # What was received, not what was planned: indices and ids come from the blocks themselves.
    # Padding is no sample; a clip that could not be read is one, of weight 0.
    samples: list[int] = []
    clip_ids: list[str] = []
    unread: list[int] = []
    for micro in batch.micro_batches:
        real = np.flatnonzero(micro.samples != PADDING)
        samples += micro.samples[real].tolist()
        clip_ids += [micro.clip_ids[i] for i in real]
        unread += [int(micro.samples[i]) for i in real if micro.weights[i] == 0]
    return RecordLine(
        step=batch.step,
        samples=as_ranges(samples),
        clips=clip_digest(clip_ids),
        unread=unread,
        applied=applied,
    )


def read_record(folder: Path, attempt: int) -> list[list[RecordLine]]:
    """The lines that every rank of an attempt has recorded, rank by rank.

    A last line that was cut off by a kill belongs to no finished step.
    """
    ranks = []
    for file in sorted(folder.glob(f"attempt_{attempt:04d}_rank_*.jsonl")):
        text = file.read_text()
        complete = text[: text.rfind("\n") + 1].splitlines()
        ranks.append([json.loads(line) for line in complete])
    return ranks
