"""Faults of nodes and of the head, on clusters of several nodes of this machine.

pytest -m soak tests/integration/chaos/test_cluster_chaos.py -s
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster
from support.chaos.run import Judge, Run
from support.nodes import HEAD_FOR_TWO, NODE, cluster_of_nodes
from support.s3 import free_port

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]
Tree = dict[str, Any]


@pytest.mark.parametrize("fault", ["raylet killed", "node removed"])
def test_a_node_is_lost_and_another_joins(
    cluster: Cluster,
    fault: str,
    on_cluster: Callable[[str], Run],
    judge: Judge,
) -> None:
    node = cluster.add_node(**NODE)
    run = on_cluster(cluster.address)
    driver = run.until_struck()
    if fault == "raylet killed":
        node.kill_raylet()
    else:
        cluster.remove_node(node, allow_graceful=False)
    cluster.add_node(**NODE)
    run.finish(driver)
    judge(run, f"{fault}, another joins")


def test_a_node_leaves_an_elastic_group(
    cluster: Cluster,
    tree: Tree,
    on_cluster: Callable[[str], Run],
    judge: Judge,
) -> None:
    """Two workers become one; the losses stay within 1e-4."""
    tree["cluster"] |= {"num_workers": 1, "max_workers": 2, "resize_interval_seconds": 5.0}
    node = cluster.add_node(**NODE)
    run = on_cluster(cluster.address)
    driver = run.until_struck()
    cluster.remove_node(node, allow_graceful=False)
    run.finish(driver)
    judge(run, "node removed, 2 to 1 workers", within=1e-4)
    assert [a["world_size"] for a in run.folder.attempts()] == [2, 1]


def test_the_whole_cluster_is_lost(on_cluster: Callable[[str], Run], judge: Judge) -> None:
    """Without fault tolerance of the head: on a new cluster the same command goes on."""
    with cluster_of_nodes(HEAD_FOR_TWO) as first:
        run = on_cluster(first.address)
        driver = run.until_struck()
    driver.kill()
    driver.communicate()
    with cluster_of_nodes(HEAD_FOR_TWO) as second:
        run.address = second.address
        run.finish()
    judge(run, "head lost, command repeated on a new one")


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server")
def test_the_head_restarts_with_its_state_in_redis(
    tmp_path: Path,
    on_cluster: Callable[[str], Run],
    judge: Judge,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Training goes on while the head is away, and the driver survives.

    The workers have been seen to hang when they open the next segment: a task that Ray Data submits
    after the restart never came back. The heartbeat then starts them again.
    """
    port = free_port()
    redis = subprocess.Popen(
        ["redis-server", "--port", str(port), "--save", "", "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )
    monkeypatch.setenv("RAY_REDIS_ADDRESS", f"127.0.0.1:{port}")
    time.sleep(1)
    try:
        with cluster_of_nodes(HEAD_FOR_TWO) as cluster:
            run = on_cluster(cluster.address)
            driver = run.until_struck()
            cluster.head_node.kill_gcs_server()
            time.sleep(2)
            cluster.head_node.start_gcs_server()
            run.finish(driver)
    finally:
        redis.kill()
    judge(run, "head restarted, state in Redis", restarts=None)
