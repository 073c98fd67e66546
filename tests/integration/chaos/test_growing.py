"""A group grows and shrinks with its cluster while it trains; how long a node waits until used.

pytest -m soak tests/integration/chaos/test_growing.py -s     1 to 2 to 3 to 1 workers
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
from metadata import metadata_service
from nodes import NODE
from ranks import losses, pretrain_plain
from ray.cluster_utils import Cluster
from runs import Outcome, Run, judged

from echojepa.errors import ClusterError
from echojepa.launch.termination import Notice, drain
from echojepa.train.run_audit import audit_run
from echojepa.train.run_folder import read_lines

pytestmark = pytest.mark.timeout(1200)
NUM_STEPS = 200
"""More than elsewhere: a group trains on while nodes come and go."""
STEPS_EACH = 5
GRACE_SECONDS = 20.0
Tree = dict[str, Any]
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


@pytest.fixture
def tree(tree: Tree) -> Tree:
    """A longer run; it saves at its end, and when it is asked to."""
    tree["loop"] |= {"num_steps": NUM_STEPS, "checkpoint_every_steps": NUM_STEPS}
    return tree


@pytest.fixture
def undisturbed(tree: Tree, tmp_path: Path) -> list[float]:
    plain = {k: v for k, v in tree.items() if k != "cluster"}
    return pretrain_plain({**plain, "run_dir": str(tmp_path / "plain")})


@pytest.mark.integration
def test_a_second_node_joins(
    cluster: Cluster,
    tree: Tree,
    on_cluster: Callable[[str], Run],
    undisturbed: list[float],
    table: list[Outcome],
) -> None:
    tree["cluster"] |= {"num_workers": 1, "max_workers": 2, "resize_interval_seconds": 1.0}
    run = on_cluster(cluster.address)
    driver = run.start()
    run.wait_for_step(8)
    run.strikes()
    cluster.add_node(**NODE)
    run.finish(driver)
    outcome = judged(run, "node joins, 1 to 2 workers", undisturbed, table, within=1e-4)
    assert outcome.redone == 0
    assert [a["world_size"] for a in run.folder.attempts()] == [1, 2]
    assert run.folder.attempts()[1]["start_step"] < NUM_STEPS, "it saved because it was asked to"


@pytest.mark.integration
def test_a_spot_node_is_taken_away(
    cluster: Cluster,
    tree: Tree,
    on_cluster: Callable[[str], Run],
    undisturbed: list[float],
    table: list[Outcome],
) -> None:
    """The cloud says so, the watcher drains it, the group saves in time and goes on without it."""
    tree["cluster"] |= {"num_workers": 1, "max_workers": 2, "resize_interval_seconds": 5.0}
    node = cluster.add_node(**NODE)
    run = on_cluster(cluster.address)
    with metadata_service("ec2") as cloud:
        command = [sys.executable, "-m", "echojepa.cli", "watch-termination"]
        command += ["--metadata", cloud.url, "--poll-seconds", "0.5"]
        command += ["--address", cluster.address, "--node-id", node.node_id]
        watcher = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        driver = run.until_struck()
        cloud.ends_in(GRACE_SECONDS)
        said, _ = watcher.communicate(timeout=GRACE_SECONDS)
    assert watcher.returncode == 0 and "EC2 spot interruption" in said
    assert cloud.ends_at is not None
    time.sleep(max(0.0, cloud.ends_at - time.time()))
    cluster.remove_node(node, allow_graceful=False)
    run.finish(driver)
    outcome = judged(run, "spot node taken after a notice", undisturbed, table, within=1e-4)
    assert outcome.redone <= 2
    assert [a["world_size"] for a in run.folder.attempts()] == [2, 1]
    assert [e["nodes"] for e in run.folder.events("drain")] == [[node.node_id]]


@pytest.mark.integration
@pytest.mark.parametrize("nobody", ["not hex", "ab" * 28])
def test_a_drain_of_no_node_is_refused(ray_cluster: str, nobody: str) -> None:
    with pytest.raises(ClusterError, match="could not be drained"):
        drain(Notice("test", time.time() + 10.0), ray_cluster, nobody)


@pytest.mark.soak
def test_one_two_three_one(
    cluster: Cluster, tree: Tree, on_cluster: Callable[[str], Run], undisturbed: list[float]
) -> None:
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
