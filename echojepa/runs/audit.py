"""`echojepa audit RUN`: proof from the recorded indices that no sample was lost or doubled.

The audit knows only the manifest and the config: it recomputes what must have been there, over the
surviving history (steps that a restart redid count once, in the attempt that went on from there).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from echojepa.config import validate
from echojepa.data.block import DataConfig
from echojepa.data.clip_table import ClipTable
from echojepa.errors import AuditError, ManifestError, StorageError
from echojepa.randomness import Seeds
from echojepa.runs.checkpoint import newest_valid, step_of
from echojepa.runs.folder import RunFolder
from echojepa.runs.rollback import seeds_of
from echojepa.train.record import RecordLine, clip_digest, from_ranges, read_record

FindingKind = Literal[
    "lost", "doubled", "foreign", "other_clips", "silent_rank", "gap", "short_record"
]


class Finding(NamedTuple):
    """Something that must not be."""

    kind: FindingKind
    step: int
    message: str
    samples: tuple[int, ...] = ()
    """Global sample indices concerned."""

    def __str__(self) -> str:
        few = f", the first {list(self.samples[:5])}" if self.samples else ""
        return f"step {self.step}: {self.message}{few}"


class AttemptReport(NamedTuple):
    """The part of the surviving history that one start of the worker group contributed."""

    attempt: int
    start: int
    stop: int
    num_ranks: int


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
    attempts: list[AttemptReport] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
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
        counts: list[int] = np.bincount(owners, minlength=len(mixture.parts)).tolist()
        return counts


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
        ranks = read_record(folder, attempt)
        recorded = {line["step"] for lines in ranks for line in lines}
        later = [starts[number] for number in order[position + 1 :]]
        stop = min([max(recorded, default=starts[attempt] - 1) + 1, *later])
        report.num_redone_steps += len([step for step in recorded if step >= stop])
        if stop <= starts[attempt]:
            continue
        report.attempts.append(AttemptReport(attempt, starts[attempt], stop, len(ranks)))
        for step in range(starts[attempt], stop):
            _check_step(report, step, [_line_of(lines, step) for lines in ranks], expected)
    stops = [0, *(part.stop for part in report.attempts)]
    for stop, part in zip(stops, report.attempts, strict=False):
        if part.start != stop:
            said = f"attempt {part.attempt} starts here, but the history before it ends at {stop}"
            report.findings.append(Finding("gap", part.start, said))
    return report


def _check_step(
    report: AuditReport, step: int, lines: list[RecordLine | None], expected: Expected
) -> None:
    """Compare what all ranks recorded of a step with what it must hold."""
    present = [line for line in lines if line is not None]
    if len(present) < len(lines):
        said = f"{len(lines) - len(present)} rank(s) recorded nothing"
        report.findings.append(Finding("silent_rank", step, said))
    received = [from_ranges(line["samples"]) for line in present]
    together = np.concatenate([*received, np.empty(0, np.int64)])
    report.findings += _compare(step, together, expected.samples(step))
    for line, samples in zip(present, received, strict=True):
        if expected.digest(samples) != line["clips"]:
            said = "samples carried other clips than planned"
            report.findings.append(Finding("other_clips", step, said, tuple(samples.tolist())))
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


def _compare(
    step: int, received: NDArray[np.int64], wanted: NDArray[np.int64]
) -> Iterator[Finding]:
    """What differs between the samples of a step and those it must have."""
    values, counts = np.unique(received, return_counts=True)
    wrong: dict[FindingKind, NDArray[np.int64]] = {
        "lost": np.setdiff1d(wanted, values),
        "doubled": values[counts > 1],
        "foreign": np.setdiff1d(values, wanted),
    }
    for kind, samples in wrong.items():
        if len(samples):
            yield Finding(kind, step, f"{len(samples)} sample(s) {kind}", tuple(samples.tolist()))


def _line_of(lines: list[RecordLine], step: int) -> RecordLine | None:
    index = step - lines[0]["step"] if lines else 0
    inside = 0 <= index < len(lines) and lines[index]["step"] == step
    return lines[index] if inside else None


def expected_of(folder: RunFolder) -> Expected:
    """What the record of a run must hold.

    Raises:
        StorageError: not a run folder, or a run that never started.
        ManifestError: the manifest is gone, or no longer the one of the run.
    """
    identity, tree = folder.identity(), folder.config_tree()
    attempts = folder.attempts()
    if not attempts:
        raise StorageError("the run has never started", "Start it first.", str(folder.path))
    data = validate(tree["data"], DataConfig, str(folder.path))
    clips = data.clips()
    if clips.fingerprint != identity["manifest_fingerprint"]:
        raise ManifestError(
            "the manifest has changed since the run",
            "Bring the old one back to audit the run.",
            data.manifest,
        )
    return Expected(
        clips=clips,
        seeds=seeds_of(folder, tree["seed"]),
        global_batch=tree["loop"]["global_batch"],
        origin=attempts[-1]["origin"],
    )


def audit_run(folder: RunFolder) -> AuditReport:
    """Prove from its recorded indices that a run lost and doubled no sample.

    Raises:
        StorageError: see `expected_of`.
        ManifestError: likewise.
    """
    expected = expected_of(folder)
    starts = {attempt["attempt"]: attempt["start_step"] for attempt in folder.attempts()}
    report = audit(folder.samples, starts, expected)
    reached = report.attempts[-1].stop if report.attempts else 0
    newest, _ = newest_valid(folder.checkpoints)
    saved = step_of(newest) if newest else 0
    if reached < saved:
        said = f"the record ends here, and there is a checkpoint of step {saved}"
        report.findings.append(Finding("short_record", reached, said))
    return report
