"""A pretraining run in a process of its own, what a fault did to it, and the table of all."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from support.chaos.driver import STRIKE_AT
from support.ranks import losses, pretrain_plain

from echojepa.runs.audit import audit_run
from echojepa.runs.folder import RunFolder, read_lines

NUM_STEPS = 40
BATCH = 8
STEPS_WITH_A_SIZE = 5
DRIVER = Path(__file__).with_name("driver.py")
COLUMNS = (
    "fault | recovered | seconds to recover | steps redone | clips lost | doubled | loss difference"
)


@dataclass(frozen=True)
class Outcome:
    """One row of the table."""

    fault: str
    recovered: bool
    seconds: float
    """From the strike to the first step beyond those done before it."""
    redone: int
    lost: int
    doubled: int
    difference: float
    """Largest difference of any step's loss from the undisturbed run."""

    def row(self) -> str:
        return (
            f"{self.fault} | {'yes' if self.recovered else 'NO'} | {self.seconds:.0f} | "
            f"{self.redone} | {self.lost} | {self.doubled} | {self.difference:.1e}"
        )


Judge = Callable[..., Outcome]


def without_faults(tree: dict[str, Any], folder: Path) -> list[float]:
    """Losses of a job in one plain process."""
    plain = {k: v for k, v in tree.items() if k != "cluster"}
    return pretrain_plain({**plain, "run_dir": str(folder / "plain")})


class Run:
    """A job on the cluster at `address`, started as often as its owner would."""

    def __init__(self, tree: dict[str, Any], folder: Path, address: str) -> None:
        self.tree = {**tree, "run_dir": str(folder / "run")}
        self.address = address
        self.folder = RunFolder(self.tree["run_dir"])
        self._config = folder / "job.yaml"
        self.write()
        self._drivers: list[subprocess.Popen[str]] = []
        self._struck: float | None = None
        self._before = 0

    def write(self) -> None:
        """Write the job as it now is."""
        self._config.write_text(yaml.safe_dump(self.tree))

    def start(self, fault: str | None = None) -> subprocess.Popen[str]:
        """Start the driver."""
        command = [sys.executable, str(DRIVER), self.address, str(self._config)]
        if fault is not None:
            command.append(fault)
        driver = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self._drivers.append(driver)
        return driver

    def close(self) -> None:
        """End what a failed test has left."""
        for driver in self._drivers:
            driver.kill()
            driver.wait()

    def wait_for_step(self, step: int, seconds: float = 240) -> None:
        """Return once a step is logged."""
        deadline = time.monotonic() + seconds
        while self.done() < step:
            assert time.monotonic() < deadline, f"step {step} was not reached"
            time.sleep(0.05)

    def done(self) -> int:
        """Last logged step."""
        lines = read_lines(self.folder.path / "metrics.jsonl")
        return max((line["step"] for line in lines), default=0)

    def trains_with(self, world_size: int, seconds: float = 240) -> float:
        """Wait until a group of this size has done some steps; returns when it did the first."""
        deadline = time.monotonic() + seconds
        while len(done := self._steps_with(world_size)) < STEPS_WITH_A_SIZE:
            assert time.monotonic() < deadline, f"no group of {world_size} workers got on"
            time.sleep(0.1)
        return done[0]

    def _steps_with(self, world_size: int) -> list[float]:
        """When the steps of the latest attempt were logged, if it has this many workers."""
        attempts = self.folder.attempts()
        if not attempts or attempts[-1]["world_size"] != world_size:
            return []
        lines = read_lines(self.folder.path / "metrics.jsonl")
        return [line["time"] for line in lines if line["time"] > attempts[-1]["time"]]

    def until_struck(self) -> subprocess.Popen[str]:
        """Start the driver, and return in the middle between two checkpoints: now it strikes."""
        driver = self.start()
        self.wait_for_step(STRIKE_AT)
        self.strikes()
        return driver

    def finish(self, driver: subprocess.Popen[str] | None = None) -> None:
        """Wait for a driver, or start one as the owner would; it must succeed."""
        driver = driver or self.start()
        _, said = driver.communicate()
        assert driver.returncode == 0, said

    def strikes(self) -> None:
        """Note that the fault strikes now."""
        self._struck, self._before = time.time(), self.done()

    def outcome(self, fault: str, undisturbed: list[float]) -> Outcome:
        """What became of it."""
        marker = self.folder.path.parent / "struck"
        struck = self._struck if self._struck is not None else marker.stat().st_mtime
        lines = read_lines(self.folder.path / "metrics.jsonl")
        before = max((line["step"] for line in lines if line["time"] <= struck), default=0)
        after = [line["time"] for line in lines if line["step"] > before]
        report = audit_run(self.folder)
        found = losses(self.tree)
        complete = len(found) == len(undisturbed) and not report.findings
        return Outcome(
            fault=fault,
            recovered=complete,
            seconds=min(after, default=float("inf")) - struck,
            redone=report.num_redone_steps,
            lost=self.tree["loop"]["num_steps"] * BATCH - report.num_samples,
            doubled=sum("doubled [" in f and "doubled []" not in f for f in report.findings),
            difference=float(np.abs(np.array(found) - np.array(undisturbed)).max())
            if len(found) == len(undisturbed)
            else float("inf"),
        )


def judged(
    run: Run,
    fault: str,
    *,
    undisturbed: list[float],
    table: list[Outcome],
    within: float = 1e-5,
    restarts: bool | None = True,
) -> Outcome:
    """Enter the outcome into the table, and demand what every fault must leave intact."""
    outcome = run.outcome(fault, undisturbed)
    table.append(outcome)
    print(outcome.row(), flush=True)
    assert outcome.recovered and outcome.lost == outcome.doubled == 0, outcome
    assert outcome.difference < within
    assert outcome.redone < 20, "less than two intervals between checkpoints"
    assert restarts in (None, len(run.folder.attempts()) > 1)
    return outcome
