"""Twenty minutes with a random fault every 60 to 90 seconds, and a quiet end.

pytest -m soak tests/integration/chaos/test_random_faults.py -s
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.actors import pids
from support.chaos.run import BATCH, Run, without_faults
from support.memory import Memory
from support.ranks import losses

from echojepa.runs.audit import audit_run
from echojepa.runs.folder import read_lines

pytestmark = [pytest.mark.soak, pytest.mark.timeout(4000)]
MINUTES, QUIET_MINUTES = 20, 3
PACE_STEPS = 200
WORKER, DECODER = "RayTrainWorker", "MapWorker(MapBatches(_DecodeActor))"
FAULTS = [
    ("worker killed", WORKER, signal.SIGKILL),
    ("worker stands still", WORKER, signal.SIGSTOP),
    ("decoder killed", DECODER, signal.SIGKILL),
    ("decoder: segmentation fault", DECODER, signal.SIGSEGV),
]
ALLOWED_GROWTH = 0.15
"""Of the mean, over the whole time of the fit."""


def steps_in(minutes: float, run: Run) -> int:
    """As many steps as an undisturbed group does in the time: one that is struck does fewer."""
    with closing(run):
        run.finish()
    lines = read_lines(run.folder.path / "metrics.jsonl")
    first, last = lines[len(lines) // 4], lines[-1]
    return int(minutes * 60 * (last["step"] - first["step"]) / (last["time"] - first["time"]))


@pytest.fixture
def run(tree: dict[str, Any], tmp_path: Path, ray_cluster: str) -> Iterator[Run]:
    tree["loop"] |= {"num_steps": PACE_STEPS, "checkpoint_every_steps": 25}
    tree["data"]["segment_steps"] = 100
    tree["cluster"]["max_failures"] = -1
    (tmp_path / "pace").mkdir()
    pace = Run(tree, tmp_path / "pace", ray_cluster)
    tree["loop"]["num_steps"] = steps_in(MINUTES + QUIET_MINUTES + 1, pace)
    with closing(Run(tree, tmp_path, ray_cluster)) as made:
        yield made


def strike(chance: random.Random) -> str:
    """One fault of those for which there is a process to strike."""
    while True:
        name, what, number = chance.choice(FAULTS)
        with suppress(IndexError, ProcessLookupError):
            os.kill(chance.choice(pids(what)), number)
            return name
        time.sleep(0.5)


def test_twenty_minutes_of_random_faults(run: Run, tmp_path: Path) -> None:
    chance = random.Random(5)
    driver = run.start()
    run.wait_for_step(5)
    memory = Memory(
        lambda: {"driver": [driver.pid], "workers": pids(WORKER), "decoders": pids(DECODER)}
    )
    memory.start()
    began, struck = time.time(), []
    while time.time() < began + 60 * MINUTES:
        time.sleep(chance.uniform(60, 90))
        assert driver.poll() is None, "the run must outlast the faults"
        struck.append(strike(chance))
        print(f"{time.time() - began:5.0f} s, step {run.done()}: {struck[-1]}", flush=True)
    quiet = time.time() + 60
    while time.time() < quiet + 60 * QUIET_MINUTES and driver.poll() is None:
        time.sleep(1)
    assert time.time() > quiet + 60, "the run must outlast the faults"
    memory.stop.set()
    run.finish(driver)

    report = audit_run(run.folder)
    undisturbed = np.array(without_faults(run.tree, tmp_path))
    difference = np.abs(np.array(losses(run.tree)) - undisturbed)
    print(f"{len(struck)} faults, {len(run.folder.attempts())} attempts")
    print(f"{report.num_redone_steps} steps redone of {report.num_steps}")
    print(f"loss difference: {difference.max():.1e} at most, {difference[-1]:.1e} at the end")
    parts = dict.fromkeys(("driver", "object store", "decoders"), began + 180) | {"workers": quiet}
    grown = {name: memory.growth(name, since) for name, since in parts.items()}
    for name, (mean, growth) in grown.items():
        print(f"{name}: {mean:.0f} MiB, {growth:+.1%} over the time of the fit")
    assert not report.findings and report.num_samples == run.tree["loop"]["num_steps"] * BATCH
    assert all(growth < ALLOWED_GROWTH for _, growth in grown.values()), grown
