"""The record of what was trained on, and the audit that proves it complete.

Every rank appends one line per step to a file of its own, naming the global sample indices it
really received (as runs) and a digest of the clips that came with them. `audit` knows only the
manifest and the config: it recomputes what must have been there, over the surviving history (steps
that a restart redid count once, in the attempt that went on from there).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from echojepa.data.clip_table import ClipTable
from echojepa.data.sampling import Seeds
from echojepa.data.stream import PADDING
from echojepa.errors import AuditError
from echojepa.train.feed import StepBatch


class RecordLine(TypedDict):
    """What a rank notes of a step."""

    step: int
    samples: list[list[int]]
    """Global sample indices received, as half-open runs in the order of arrival."""
    clips: str
    """Digest of the clip ids that came with them."""
    unread: list[int]
    """Samples whose clip could not be read (weight 0)."""
    applied: bool
    """False for a dropped step."""


def as_runs(samples: Iterable[int]) -> list[list[int]]:
    """[5, 6, 7, 11] to [[5, 8], [11, 12]]: half-open runs, in the order of arrival."""
    runs: list[list[int]] = []
    for s in samples:
        if runs and runs[-1][1] == s:
            runs[-1][1] = s + 1
        else:
            runs.append([s, s + 1])
    return runs


def from_runs(runs: Iterable[Iterable[int]]) -> NDArray[np.int64]:
    """The inverse of `as_runs`."""
    parts = [np.arange(*run, dtype=np.int64) for run in runs]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def clip_digest(clip_ids: Iterable[str]) -> str:
    """A digest of clip ids in order."""
    return hashlib.blake2b("\n".join(clip_ids).encode(), digest_size=8).hexdigest()


class SampleRecord:
    """The record of one rank in one attempt; a context manager."""

    def __init__(self, folder: Path, attempt: int, rank: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"attempt_{attempt:04d}_rank_{rank:05d}.jsonl"
        self._file = (folder / name).open("a", buffering=1)

    def __enter__(self) -> SampleRecord:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, batch: StepBatch, *, applied: bool) -> None:
        """Note a finished step."""
        self._file.write(json.dumps(describe(batch, applied=applied)) + "\n")


def describe(batch: StepBatch, *, applied: bool) -> RecordLine:
    """The record of one step of one rank."""
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
        samples=as_runs(samples),
        clips=clip_digest(clip_ids),
        unread=unread,
        applied=applied,
    )


@dataclass
class DataSetReport:
    """What a run took from one data set of its mixture."""

    num_clips: int
    """Clips the data set has."""
    num_samples: int = 0
    num_unread: int = 0
    """Of the samples, those that could not be read (weight 0)."""
    num_dropped: int = 0
    """Of the samples, those in dropped steps."""


@dataclass
class AuditReport:
    """What the record of a run shows."""

    num_steps: int = 0
    num_samples: int = 0
    """Distinct indices trained on, each once."""
    num_unread: int = 0
    """Of them, clips that could not be read (weight 0)."""
    num_dropped_steps: int = 0
    """Steps whose gradient was not finite, or that had no readable clip."""
    num_redone_steps: int = 0
    """Steps of abandoned attempts that were done again after a restart."""
    data_sets: dict[str, DataSetReport] = field(default_factory=dict)
    """By name, if the run draws from a mixture."""
    attempts: list[dict[str, int]] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    """What is wrong; empty is a clean audit."""

    def raise_if_unclean(self, where: str) -> None:
        """Raise `AuditError` on the first finding."""
        if self.findings:
            raise AuditError(
                f"{len(self.findings)} finding(s), the first: {self.findings[0]}",
                "The run's history is not what its seed and manifest demand: do not publish it.",
                where,
            )


@dataclass(frozen=True)
class Expected:
    """What the record is compared with."""

    clips: ClipTable
    seeds: Seeds
    global_batch: int
    origin: int
    """Global sample index of step 0."""

    def samples(self, step: int) -> NDArray[np.int64]:
        """Global sample indices of a step."""
        first = self.origin + step * self.global_batch
        return np.arange(first, first + self.global_batch, dtype=np.int64)

    def digest(self, samples: NDArray[np.int64]) -> str:
        """Digest of the clips that these samples are."""
        return clip_digest(self.clips.clip_ids(self.clips.rows_of(samples, self.seeds)))

    def per_data_set(self, samples: NDArray[np.int64]) -> list[int]:
        """How many of the samples each data set of the mixture has; empty without a mixture."""
        mixture = self.clips.mixture
        if mixture is None:
            return []
        owners, _ = mixture.split(samples)
        return np.bincount(owners, minlength=len(mixture.parts)).tolist()


def audit(folder: Path, starts: dict[int, int], expected: Expected) -> AuditReport:
    """Check the record of a run.

    Args:
        folder: where the `SampleRecord`s are.
        starts: first step of every attempt, by attempt number.
    """
    report = AuditReport()
    if expected.clips.mixture is not None:
        parts = expected.clips.mixture.parts
        report.data_sets = {part.name: DataSetReport(part.num_clips) for part in parts}
    order = sorted(starts)
    for position, attempt in enumerate(order):
        ranks = [_read(file) for file in sorted(folder.glob(f"attempt_{attempt:04d}_rank_*.jsonl"))]
        recorded = {line["step"] for lines in ranks for line in lines}
        later = [starts[number] for number in order[position + 1 :]]
        stop = min([max(recorded, default=starts[attempt] - 1) + 1, *later])
        report.num_redone_steps += len([step for step in recorded if step >= stop])
        if stop <= starts[attempt]:
            continue
        report.attempts.append(
            {"attempt": attempt, "start": starts[attempt], "stop": stop, "ranks": len(ranks)}
        )
        for step in range(starts[attempt], stop):
            _check_step(report, step, [_line_of(lines, step) for lines in ranks], expected)
    stops = [0, *(part["stop"] for part in report.attempts)]
    for stop, part in zip(stops, report.attempts, strict=False):
        if part["start"] != stop:
            report.findings.append(
                f"attempt {part['attempt']} starts at step {part['start']}, but the history before "
                f"it ends at {stop}"
            )
    return report


def _check_step(
    report: AuditReport, step: int, lines: list[RecordLine | None], expected: Expected
) -> None:
    """Compare what all ranks recorded of a step with what it must hold."""
    present = [line for line in lines if line is not None]
    if len(present) < len(lines):
        report.findings.append(f"step {step}: {len(lines) - len(present)} rank(s) recorded nothing")
    received = [from_runs(line["samples"]) for line in present]
    together = np.sort(np.concatenate([*received, np.empty(0, np.int64)]))
    wanted = expected.samples(step)
    if not np.array_equal(together, wanted):
        values, counts = np.unique(together, return_counts=True)
        lost, foreign = np.setdiff1d(wanted, values), np.setdiff1d(values, wanted)
        report.findings.append(
            f"step {step}: lost {lost[:5].tolist()}, doubled {values[counts > 1][:5].tolist()}, "
            f"foreign {foreign[:5].tolist()}"
        )
    for line, samples in zip(present, received, strict=True):
        if expected.digest(samples) != line["clips"]:
            report.findings.append(f"step {step}: samples {samples[:5].tolist()} hold other clips")
    trained_on = np.unique(together)
    unread = np.unique([s for line in present for s in line["unread"]]).astype(np.int64)
    dropped = not all(line["applied"] for line in present)
    report.num_steps += 1
    report.num_samples += len(trained_on)
    report.num_unread += len(unread)
    report.num_dropped_steps += dropped
    numbers, unread_numbers = expected.per_data_set(trained_on), expected.per_data_set(unread)
    parts = report.data_sets.values()
    for part, number, number_unread in zip(parts, numbers, unread_numbers, strict=True):
        part.num_samples += number
        part.num_unread += number_unread
        part.num_dropped += number * dropped


def _read(file: Path) -> list[RecordLine]:
    """Lines of a record; a last line cut off by a kill belongs to no finished step."""
    text = file.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def _line_of(lines: list[RecordLine], step: int) -> RecordLine | None:
    index = step - lines[0]["step"] if lines else 0
    inside = 0 <= index < len(lines) and lines[index]["step"] == step
    return lines[index] if inside else None
