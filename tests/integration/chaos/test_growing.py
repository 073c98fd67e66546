"""1 to 2 to 3 to 1 workers while training, and how long a node waits until it is used.

pytest -m soak tests/integration/chaos/test_growing.py -s
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nodes import NODE
from ranks import losses, pretrain_plain
from ray.cluster_utils import Cluster
from runs import Run

from echojepa.launch.termination import Notice, drain
from echojepa.train.run_audit import audit_run
from echojepa.train.run_folder import read_lines

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]
NUM_STEPS = 120
STEPS_EACH = 10
GRACE_SECONDS = 20.0
IMPORTS = "import ray.train.torch, deepspeed, echojepa.launch.pretrain"


def steps_with(run: Run, world_size: int) -> list[float]:
    """When the steps of the latest attempt were logged, if it has this many workers."""
    attempts = run.folder.attempts()
    if not attempts or attempts[-1]["world_size"] != world_size:
        return []
    lines = read_lines(run.folder.path / "metrics.jsonl")
    return [line["time"] for line in lines if line["time"] > attempts[-1]["time"]]


def trains_with(run: Run, world_size: int) -> float:
    """Wait until a group of this size has done some steps; returns when it did the first."""
    deadline = time.monotonic() + 240
    while len(steps_with(run, world_size)) < STEPS_EACH:
        assert time.monotonic() < deadline, f"no group of {world_size} workers got on"
        time.sleep(0.1)
    return steps_with(run, world_size)[0]


def start_seconds(number: int) -> float:
    """How long this machine takes to start this many worker processes at once."""
    began = time.monotonic()
    command = [sys.executable, "-c", IMPORTS]
    for process in [subprocess.Popen(command) for _ in range(number)]:
        assert process.wait() == 0
    return time.monotonic() - began


def test_one_two_three_one(
    cluster: Cluster, tree: dict[str, Any], tmp_path: Path, on_cluster: Callable[[str], Run]
) -> None:
    tree["loop"]["num_steps"] = NUM_STEPS
    plain = {k: v for k, v in tree.items() if k != "cluster"}
    undisturbed = pretrain_plain({**plain, "run_dir": str(tmp_path / "plain")})
    tree["cluster"] |= {"num_workers": 1, "max_workers": 3, "resize_interval_seconds": 1.0}
    run = on_cluster(cluster.address)
    driver = run.start()
    trains_with(run, 1)
    waits, nodes = {}, []
    for size in (2, 3):
        nodes.append(cluster.add_node(**NODE))
        joined = time.time()
        waits[size] = trains_with(run, size) - joined
    gone_at = time.time() + GRACE_SECONDS
    for node in nodes:
        drain(Notice("test", gone_at), cluster.address, node.node_id)
    time.sleep(max(0.0, gone_at - time.time()))
    for node in nodes:
        cluster.remove_node(node, allow_graceful=False)
    waits[1] = trains_with(run, 1) - gone_at
    run.finish(driver)

    report = audit_run(run.folder)
    assert not report.findings and report.num_samples == NUM_STEPS * 8
    assert [a["world_size"] for a in run.folder.attempts()] == [1, 2, 3, 1]
    assert report.num_redone_steps <= 2 * 3
    difference = float(np.abs(np.array(losses(run.tree)) - np.array(undisturbed)).max())
    starts = {size: start_seconds(size) for size in waits}
    print(f"\nloss difference {difference:.1e}, {report.num_redone_steps} steps redone")
    for size, seconds in waits.items():
        print(f"trains with {size}: {seconds:.0f} s, of them processes {starts[size]:.0f} s")
    assert difference < 1e-4
    assert all(waits[size] <= starts[size] + 30 for size in (2, 3))
