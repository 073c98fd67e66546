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

import numpy as np
from numpy.typing import NDArray

from echojepa.data.manifest import ClipTable
from echojepa.data.sampling import rows_of
from echojepa.data.stream import PADDING
from echojepa.errors import AuditError
from echojepa.train.feed import StepBatch


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
        line = describe(batch.step, *_received(batch), applied=applied)
        self._file.write(json.dumps(line, separators=(",", ":")) + "\n")


def _received(batch: StepBatch) -> tuple[list[int], list[str], list[int]]:
    samples: list[int] = []
    clip_ids: list[str] = []
    unread: list[int] = []
    for micro in batch.micro_batches:
        real = np.flatnonzero(micro.samples != PADDING)
        samples += micro.samples[real].tolist()
        clip_ids += [micro.clip_ids[i] for i in real]
        unread += [int(micro.samples[i]) for i in real if micro.weights[i] == 0]
    return samples, clip_ids, unread


def describe(
    step: int, samples: list[int], clip_ids: list[str], unread: list[int], *, applied: bool
) -> dict[str, object]:
    """One line of the record."""
    return {
        "step": step,
        "samples": as_runs(samples),
        "clips": clip_digest(clip_ids),
        "unread": unread,
        "applied": applied,
    }


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


def audit(folder: Path, starts: dict[int, int], batch: int, clips: ClipTable, seed: int) -> AuditReport:
    """Check the record of a run.

    Args:
        folder: where `SampleRecord`s are.
        starts: first step of every attempt, by attempt number.
        batch: the global batch G.
    """
    report = AuditReport()
    order = sorted(starts)
    for position, attempt in enumerate(order):
        ranks = [_read(file) for file in sorted(folder.glob(f"attempt_{attempt:04d}_rank_*.jsonl"))]
        ends = [starts[later] for later in order[position + 1 :]]
        recorded = {line["step"] for lines in ranks for line in lines}
        last = min([max(recorded, default=starts[attempt] - 1) + 1, *ends])
        report.num_redone_steps += len([s for s in recorded if s >= last])
        if last <= starts[attempt]:
            continue
        report.attempts.append(
            {"attempt": attempt, "start": starts[attempt], "stop": last, "ranks": len(ranks)}
        )
        for step in range(starts[attempt], last):
            _check_step(report, step, [_line_of(lines, step) for lines in ranks], batch, clips, seed)
    stops = [0, *(a["stop"] for a in report.attempts)]
    for stop, following in zip(stops, report.attempts, strict=False):
        if following["start"] != stop:
            report.findings.append(
                f"attempt {following['attempt']} starts at step {following['start']}, but the "
                f"history before it ends at {stop}"
            )
    return report


def _check_step(
    report: AuditReport,
    step: int,
    lines: list[dict[str, object] | None],
    batch: int,
    clips: ClipTable,
    seed: int,
) -> None:
    """Compare what all ranks recorded of a step with what it must hold."""
    present = [line for line in lines if line is not None]
    if len(present) < len(lines):
        report.findings.append(f"step {step}: {len(lines) - len(present)} rank(s) recorded nothing")
    received = [from_runs(line["samples"]) for line in present]  # type: ignore[arg-type]
    together = np.sort(np.concatenate(received)) if received else np.empty(0, np.int64)
    wanted = np.arange(step * batch, (step + 1) * batch)
    if not np.array_equal(together, wanted):
        lost = np.setdiff1d(wanted, together)[:5].tolist()
        values, counts = np.unique(together, return_counts=True)
        doubled = values[counts > 1][:5].tolist()
        foreign = np.setdiff1d(together, wanted)[:5].tolist()
        report.findings.append(f"step {step}: lost {lost}, doubled {doubled}, foreign {foreign}")
    for line, samples in zip(present, received, strict=True):
        if clip_digest(clips.clip_ids(rows_of(samples, len(clips), seed))) != line["clips"]:
            report.findings.append(f"step {step}: samples {samples[:5].tolist()} hold other clips")
    unread = {s for line in present for s in line["unread"]}  # type: ignore[attr-defined]
    report.num_steps += 1
    report.num_samples += len(np.unique(together))
    report.num_unread += len(unread)
    report.num_dropped_steps += not all(line["applied"] for line in present)


def _read(file: Path) -> list[dict[str, object]]:
    """Lines of a record; a last line cut off by a kill belongs to no finished step."""
    text = file.read_text()
    complete = text[: text.rfind("\n") + 1]
    return [json.loads(line) for line in complete.splitlines()]


def _line_of(lines: list[dict[str, object]], step: int) -> dict[str, object] | None:
    index = step - int(str(lines[0]["step"])) if lines else 0
    inside = 0 <= index < len(lines) and lines[index]["step"] == step
    return lines[index] if inside else None
