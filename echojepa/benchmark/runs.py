"""What the runs of a benchmark have cost and how they went, from their folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from echojepa.runs.folder import RunFolder

Line = dict[str, Any]
PROBED = {"regression": "r2", "classification": "balanced_accuracy"}
"""How far the online probe has come, by the kind of its task: the end of a metric's name."""


class RunRecord(NamedTuple):
    """One finished run."""

    num_steps: int
    num_samples: int
    seconds: float
    """Of all steps, probes and pictures, waiting for data included; starts of workers are not."""
    curves: list[Line]
    """Logged metrics, those of a step once."""

    @property
    def step_seconds(self) -> float:
        """On average."""
        return self.seconds / self.num_steps

    def curve(self, ending: str) -> list[tuple[int, float]]:
        """The first metric whose name ends like this, over steps; empty if there is none.

        The first one of several is that of the encoder that leaves the run.
        """
        names = [name for line in self.curves for name in line if name.endswith(ending)]
        if not names:
            return []
        return [
            (int(line["step"]), float(line[names[0]])) for line in self.curves if names[0] in line
        ]


def record_of(run: Path) -> RunRecord:
    """Read the metrics of a run; raises `StorageError` if it is none."""
    folder = RunFolder(run)
    folder.identity()
    tree = folder.config_tree()
    curves = folder.logged()
    num_steps = int(curves[-1]["step"]) if curves else 0
    return RunRecord(
        num_steps=num_steps,
        num_samples=num_steps * int(tree["loop"]["global_batch"]),
        seconds=_seconds(curves),
        curves=curves,
    )


def _seconds(curves: Sequence[Mapping[str, Any]]) -> float:
    """Every line tells the mean of the steps since the one before."""
    before = [0, *(int(line["step"]) for line in curves)]
    return float(
        sum(
            line["step_seconds"] * (int(line["step"]) - start)
            for start, line in zip(before, curves, strict=False)
        )
    )


def settled_step_seconds(run: Path) -> float:
    """Seconds of a step of a short run that logged every one: the median of its second half."""
    curves = record_of(run).curves
    late = sorted(float(line["step_seconds"]) for line in curves[len(curves) // 2 :])
    return late[len(late) // 2]
