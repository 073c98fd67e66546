"""A group grows and shrinks with its cluster while it trains; how long a node waits until used.

pytest -m soak tests/integration/chaos/test_growing.py -s     1 to 2 to 3 to 1 workers
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import numpy as np
import pytest
from ray.cluster_utils import Cluster
from support.autoscaling import autoscaling_cluster
from support.chaos.run import BATCH, Judge, Run
from support.metadata import Cloud, metadata_service
from support.nodes import NODE
from support.ranks import losses

from echojepa.errors import ClusterError
from echojepa.on_ray.termination import Notice, drain
from echojepa.runs.audit import audit_run

pytestmark = pytest.mark.timeout(1200)
GRACE_SECONDS = 20.0
Tree = dict[str, Any]
IMPORTS = "import ray.train.torch, deepspeed, echojepa.launch.pretrain"


def import_seconds(number: int) -> float:
    """How long this machine takes to import what a worker needs, in so many processes at once."""
    began = time.monotonic()
    command = [sys.executable, "-c", IMPORTS]
    for process in [Popen(command) for _ in range(number)]:
        assert process.wait() == 0
    return time.monotonic() - began


@pytest.fixture(params=[60])
def tree(tree: Tree, request: pytest.FixtureRequest) -> Tree:
    """A longer run, as a group trains on while nodes come and go; it saves when it is asked to."""
    tree["loop"] |= {"num_steps": request.param, "checkpoint_every_steps": request.param}
    return tree


@contextmanager
def watched_spot_node(cluster: Cluster, node: Any) -> Iterator[tuple[Cloud, Popen[str]]]:
    """The cloud that a node was rented from, and `echojepa watch-termination` beside the node."""
    with metadata_service("ec2") as cloud:
        command = [sys.executable, "-m", "echojepa.cli", "watch-termination"]
        command += ["--metadata", cloud.url, "--poll-seconds", "0.5"]
        command += ["--address", cluster.address, "--node-id", node.node_id]
        with Popen(command, stdout=PIPE, text=True) as watcher:
            try:
                yield cloud, watcher
            finally:
                watcher.kill()


@pytest.mark.integration
def test_a_spot_node_joins_and_is_taken_away(
    cluster: Cluster,
    tree: Tree,
    on_cluster: Callable[[str], Run],
    judge: Judge,
) -> None:
    """One worker, two, one again. Both times the group saves in time, so that no step is redone.

    The second time the cloud gives notice, the watcher drains the node, and the group saves and
    goes on without it.
    """
    tree["cluster"] |= {"num_workers": 1, "max_workers": 2, "resize_interval_seconds": 1.0}
    run = on_cluster(cluster.address)
    driver = run.start()
    run.wait_for_step(8)
    run.strikes()
    node = cluster.add_node(**NODE)
    run.trains_with(2)
    with watched_spot_node(cluster, node) as (cloud, watcher):
        cloud.ends_in(GRACE_SECONDS)
        said, _ = watcher.communicate(timeout=GRACE_SECONDS)
    assert watcher.returncode == 0 and "EC2 spot interruption" in said
    assert cloud.ends_at is not None
    time.sleep(max(0.0, cloud.ends_at - time.time()))
    cluster.remove_node(node, allow_graceful=False)
    run.finish(driver)
    outcome = judge(run, "node joins, and is taken after a notice", within=1e-4)
    assert outcome.redone <= 2
    assert [a["world_size"] for a in run.folder.attempts()] == [1, 2, 1]
    assert [e["nodes"] for e in run.folder.events("drain")] == [[node.node_id]]
    assert run.folder.attempts()[1]["start_step"] < tree["loop"]["num_steps"], "asked to save"


@pytest.mark.integration
@pytest.mark.parametrize("nobody", ["not hex", "ab" * 28])
def test_a_drain_of_no_node_is_refused(ray_cluster: str, nobody: str) -> None:
    with pytest.raises(ClusterError, match=f"no Ray node {nobody} lives there"):
        drain(Notice("test", time.time() + 10.0), ray_cluster, nobody)


@pytest.mark.soak
def test_the_autoscaler_brings_a_second_node(
    tree: Tree,
    tmp_path: Path,
    on_cluster: Callable[[str], Run],
    judge: Judge,
) -> None:
    """It does because the group may grow; no other demand is there."""
    tree["cluster"] |= {"num_workers": 1, "max_workers": 2, "resize_interval_seconds": 1.0}
    with autoscaling_cluster(tmp_path) as address:
        run = on_cluster(address)
        run.strikes()
        driver = run.start()
        run.trains_with(2)
        run.finish(driver)
    sizes = [a["world_size"] for a in run.folder.attempts()]
    assert sizes in ([1, 2], [2]), "the node may come before the group starts"
    judge(run, "autoscaler brings a node", within=1e-4, restarts=sizes != [2])


@pytest.mark.soak
@pytest.mark.parametrize("tree", [200], indirect=True)
def test_one_two_three_one(
    cluster: Cluster, tree: Tree, on_cluster: Callable[[str], Run], undisturbed: list[float]
) -> None:
    tree["cluster"] |= {"num_workers": 1, "max_workers": 3, "resize_interval_seconds": 1.0}
    run = on_cluster(cluster.address)
    began = time.time()
    driver = run.start()
    cold_start = run.trains_with(1) - began
    waits, nodes = {}, []
    for size in (2, 3):
        nodes.append(cluster.add_node(**NODE))
        joined = time.time()
        waits[size] = run.trains_with(size) - joined
    gone_at = time.time() + GRACE_SECONDS
    for node in nodes:
        drain(Notice("test", gone_at), cluster.address, node.node_id)
    time.sleep(max(0.0, gone_at - time.time()))
    for node in nodes:
        cluster.remove_node(node, allow_graceful=False)
    waits[1] = run.trains_with(1) - gone_at
    run.finish(driver)

    report = audit_run(run.folder)
    assert not report.findings and report.num_samples == tree["loop"]["num_steps"] * BATCH
    assert [a["world_size"] for a in run.folder.attempts()] == [1, 2, 3, 1]
    assert report.num_redone_steps <= 2 * 3
    difference = float(np.abs(np.array(losses(run.tree)) - np.array(undisturbed)).max())
    print(f"\nloss difference {difference:.1e}, {report.num_redone_steps} steps redone")
    print(f"started from nothing: {cold_start:.0f} s")
    for size, seconds in waits.items():
        print(f"trains with {size}: {seconds:.0f} s; imports alone {import_seconds(size):.0f} s")
    assert difference < 1e-4
    assert all(seconds <= cold_start + 30 for seconds in waits.values())
