"""All that a benchmark has found, and its files.

OUT/
  benchmark.json     everything: plan, costs, scores, differences, what failed, where it ran
  benchmark.parquet  every score and difference, a line each
  benchmark.md       the tables
  benchmark.html     the page
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from echojepa.benchmark.board import Board, Encoders, lines_of
from echojepa.benchmark.config import BenchmarkConfig
from echojepa.benchmark.curves import arm_label_curves, arm_severity
from echojepa.benchmark.matching import PlannedArm
from echojepa.benchmark.measures import Measure, in_tables
from echojepa.benchmark.order import SameOrder
from echojepa.benchmark.tables import Runs, Table, cost_table, difference_table, score_table
from echojepa.config import to_tree
from echojepa.durable import write_text
from echojepa.probes.suites.findings import Findings, finite
from echojepa.probes.suites.label_efficiency import CurvePoint
from echojepa.probes.suites.robustness import SeverityPoint
from echojepa.probes.tasks import Task

JSON = "benchmark.json"
SCHEMA = pa.schema(
    [
        ("arm", pa.string()),
        ("seed", pa.int64()),
        ("task", pa.string()),
        ("condition", pa.string()),
        ("detail", pa.string()),
        ("metric", pa.string()),
        ("num_patients", pa.int64()),
        ("minus", pa.string()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
    ]
)
"""A line without a seed is the mean over seeds; one with `minus` is a difference to that arm."""


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    config: BenchmarkConfig
    plan: Sequence[PlannedArm]
    runs: Runs
    orders: Mapping[int, SameOrder]
    """Of every seed, whether its arms saw the same clips."""
    encoders: Encoders
    findings: Findings
    board: Board
    failed: Mapping[str, str]
    """By what it was, why there is no result."""
    facts: Mapping[str, Any]
    """Where and from what it was made."""

    @property
    def tasks(self) -> dict[str, Task]:
        """By name."""
        return {name: one.task for name, one in self.findings.tasks.items()}

    @cached_property
    def columns(self) -> dict[str, list[Measure]]:
        """What the tables show, by title."""
        kinds = {name: str(task.kind) for name, task in self.tasks.items()}
        return in_tables(self.board.measures, kinds)

    @cached_property
    def tables(self) -> list[Table]:
        """Scores, differences, costs."""
        scores = [
            score_table(title, self.board, measures, self.tasks)
            for title, measures in self.columns.items()
        ]
        every = [measure for measures in self.columns.values() for measure in measures]
        apart = [
            difference_table(self.board, minus, every, self.tasks)
            for minus in self.config.opponents
        ]
        return [*scores, *apart, cost_table(self.plan, self.runs)]

    @cached_property
    def lines(self) -> list[dict[str, object]]:
        """All scores and differences; see `lines_of`."""
        return list(lines_of(self.board, self.config.opponents))

    @property
    def order_notes(self) -> list[str]:
        """What the arms of every seed saw, in words."""
        return [f"Seed {seed}: all arms saw {said}." for seed, said in self.orders.items()]

    @property
    def label_curve(self) -> list[CurvePoint]:
        """Means of every arm over its seeds."""
        return arm_label_curves(self.findings.label_curve, self.encoders)

    @property
    def severity(self) -> list[SeverityPoint]:
        """Means of every arm over its seeds."""
        return arm_severity(self.findings.severity, self.encoders)

    def described(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            **self.facts,
            "config": to_tree(self.config),
            "failed": dict(self.failed),
            "plan": [
                {
                    "arm": arm.name,
                    "target": arm.target.name if arm.target else None,
                    "num_steps": arm.num_steps,
                    **{f"{name}_per_step": value for name, value in arm.step._asdict().items()},
                    "flops": arm.total("flops"),
                    "matched_by": self.config.match,
                    "matched": arm.total(self.config.match),
                }
                for arm in self.plan
            ],
            "runs": [
                {
                    "arm": arm,
                    "seed": seed,
                    "num_steps": record.num_steps,
                    "num_samples": record.num_samples,
                    "seconds": record.seconds,
                }
                for (arm, seed), record in self.runs.items()
            ],
            "order": {str(seed): order._asdict() for seed, order in self.orders.items()},
            "scores": self.lines,
        }


def write_files(outcome: Outcome, out: Path) -> None:
    """Write all but the page; the JSON last. Raises `OSError`."""
    pq.write_table(pa.Table.from_pylist(outcome.lines, schema=SCHEMA), out / "benchmark.parquet")
    failed = "".join(f"No result of {what}: {why}\n\n" for what, why in outcome.failed.items())
    order = "".join(f"{note}\n\n" for note in outcome.order_notes)
    tables = "\n".join(table.as_markdown() for table in outcome.tables)
    write_text(out / "benchmark.md", f"# Benchmark\n\n{failed}{order}{tables}")
    content = json.dumps(finite(outcome.described()), indent=1, allow_nan=False)
    write_text(out / JSON, content)
