"""Nodes of clusters of several nodes on this machine: room for one training worker on each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.cluster_utils import Cluster
from ray.experimental import internal_kv

from echojepa.on_ray.connect import TRAIN_RESOURCE

NODE: dict[str, Any] = {
    "num_cpus": 1,
    "resources": {TRAIN_RESOURCE: 1},
    "object_store_memory": 300 * 2**20,
}
HEAD: dict[str, Any] = {**NODE, "include_dashboard": True, "dashboard_port": None}
"""With the dashboard on any free port: another cluster may have taken the usual one."""
HEAD_FOR_TWO: dict[str, Any] = {**HEAD, "resources": {TRAIN_RESOURCE: 2}}


@contextmanager
def cluster_of_nodes(head: dict[str, Any] = HEAD) -> Iterator[Cluster]:
    """A cluster with one node, to which others can be added.

    Its end would cut this process off the key-value store of another cluster it is connected to.
    """
    connected_to = internal_kv.internal_kv_get_gcs_client()
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield made
    finally:
        made.shutdown()
        if connected_to is not None:
            internal_kv._initialize_internal_kv(connected_to)
