"""All that an evaluation has found, and its files.

OUT/
  results.json           everything, with intervals, differences and what failed; null is what is
                         not defined, such as an area where all are of one class
  results.parquet        every test score of every group, a line each
  predictions.parquet    of every study or clip of the test split
  probes/TASK/NAME/      fitted probes
  ledger.jsonl           when the test split was read, and by which config
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from echojepa.data.problem import Problem
from echojepa.errors import IncompleteError, UserError
from echojepa.probes.examples import Examples
from echojepa.probes.fitting import Judged, Probe, ProbeResult
from echojepa.probes.leaks import Pretraining
from echojepa.probes.results import all_differences, described, lines_of, ranked, score_table
from echojepa.probes.store import Features
from echojepa.probes.suites.label_efficiency import CurvePoint
from echojepa.probes.suites.robustness import SeverityPoint
from echojepa.probes.suites.transfer import Transfer
from echojepa.probes.tasks import Task


@dataclass(frozen=True)
class TaskFindings:
    """Of one task."""

    examples: Examples
    judged: list[Judged]
    baseline: Probe
    """It sees no pixels."""
    worth: ProbeResult
    """Of the baseline."""

    @property
    def task(self) -> Task:
        """Which."""
        return self.worth.task


@dataclass
class Findings:
    """Of a whole evaluation; grows while it goes on."""

    pretraining: dict[str, Pretraining]
    """What is known of the patients that each encoder was pretrained on."""
    features: dict[str, Features] = field(default_factory=dict)
    """By encoder."""
    failed: dict[str, UserError] = field(default_factory=dict)
    """By what it was."""
    tasks: dict[str, TaskFindings] = field(default_factory=dict)
    label_curve: list[CurvePoint] = field(default_factory=list)
    severity: list[SeverityPoint] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)

    @contextmanager
    def noting(self, what: str) -> Iterator[None]:
        """What fails inside is noted under this name."""
        try:
            yield
        except UserError as error:
            self.failed[what] = error

    def raise_if_incomplete(self, where: str) -> None:
        """Raise `IncompleteError` if something failed; everything else is written at `where`."""
        if self.failed:
            named = "; ".join(f"{name}: {error}" for name, error in self.failed.items())
            raise IncompleteError(f"failed: {named}", "Everything else is written.", where)

    @property
    def results(self) -> list[ProbeResult]:
        """Task by task, the baseline last."""
        return [
            result
            for one in self.tasks.values()
            for result in (*(judged.result for judged in one.judged), one.worth)
        ]

    @property
    def num_clips(self) -> int:
        """Clips that were to be encoded."""
        return max(len(features.clip_ids) for features in self.features.values())

    @property
    def unread(self) -> list[Problem]:
        """Of every clip that some encoder could not be shown, why."""
        first: dict[str, Problem] = {}
        for features in self.features.values():
            for clip_id, problem in zip(features.clip_ids, features.problems, strict=True):
                if problem is not None:
                    first.setdefault(clip_id, problem)
        return list(first.values())

    def readable(self) -> set[str]:
        """Clips that every encoder was shown."""
        return set.intersection(*(features.readable() for features in self.features.values()))

    def described(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "encoders": {
                name: {"pretraining_patients": known._asdict()}
                for name, known in self.pretraining.items()
            },
            "num_clips": self.num_clips,
            "num_unreadable": len(self.unread),
            "results": [described(result) for result in self.results],
            "differences": all_differences(self.results),
            "ranking": ranked(self.results),
            "label_efficiency": [point.described() for point in self.label_curve],
            "robustness": [point.described() for point in self.severity],
            "transfers": [transfer.described() for transfer in self.transfers],
            "failed": {what: str(error) for what, error in self.failed.items()},
        }


def finite(content: Any) -> Any:
    """As JSON can say it: null in place of numbers that are not finite."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def write_findings(findings: Findings, out: Path, facts: dict[str, Any]) -> None:
    """Write the tables of an evaluation. Raises `OSError`.

    Args:
        facts: what else `results.json` says.
    """
    content = finite({**facts, **findings.described()})
    (out / "results.json").write_text(json.dumps(content, indent=1, allow_nan=False))
    pq.write_table(score_table(findings.results), out / "results.parquet")
    predictions = [line for result in findings.results for line in lines_of(result)]
    pq.write_table(pa.Table.from_pylist(predictions), out / "predictions.parquet")
