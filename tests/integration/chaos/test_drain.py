"""A cloud says that it will take a spot node: the group saves in time and goes on without it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from metadata import metadata_service
from nodes import NODE
from ray.cluster_utils import Cluster
from runs import Outcome, Run, judged

from echojepa.errors import ClusterError
from echojepa.launch.termination import Notice, drain

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
GRACE_SECONDS = 20.0


def test_a_spot_node_is_taken_away(
    cluster: Cluster,
    tree: dict[str, Any],
    on_cluster: Callable[[str], Run],
    undisturbed: list[float],
    table: list[Outcome],
) -> None:
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


@pytest.mark.parametrize("nobody", ["not hex", "ab" * 28])
def test_a_drain_of_no_node_is_refused(ray_cluster: str, nobody: str) -> None:
    with pytest.raises(ClusterError, match="could not be drained"):
        drain(Notice("test", time.time() + 10.0), ray_cluster, nobody)
