"""A real Ray head whose autoscaler "rents" nodes that are processes of this machine.

Ray's own `AutoscalingCluster` ends every Ray process of the machine; this one ends what it started.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import ray
from support.nodes import NODE
from support.s3 import free_port

from echojepa.on_ray.connect import TRAIN_RESOURCE

HEAD_NODE_ID = "f" * 51 + "00000"
"""As the provider calls it."""
RESOURCES = {"CPU": NODE["num_cpus"], TRAIN_RESOURCE: 1}
NODE_TYPE = {"resources": RESOURCES, "node_config": {}}


def _config(gcs_address: str, max_workers: int, idle_seconds: float) -> dict[str, object]:
    return {
        "cluster_name": "rented",
        "max_workers": max_workers,
        "provider": {
            "type": "external",  # "fake_multinode" wants a file that Ray's wheel does not hold
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "disable_node_updaters": True,
            "gcs_address": gcs_address,
            "head_node_id": HEAD_NODE_ID,
            "launch_multiple": True,
        },
        "available_node_types": {
            "ray.head.default": {**NODE_TYPE, "max_workers": 0},
            "spot": {**NODE_TYPE, "min_workers": 0, "max_workers": max_workers},
        },
        "head_node_type": "ray.head.default",
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": idle_seconds / 60,
        "auth": {"ssh_user": "nobody"},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
    }


@contextmanager
def autoscaling_cluster(
    folder: Path, max_workers: int = 1, idle_seconds: float = 20.0
) -> Iterator[str]:
    """A head with room for one worker, and up to `max_workers` such nodes. Yields the address."""
    port = free_port()
    address = f"{ray.util.get_node_ip_address()}:{port}"
    file = folder / "autoscaling.json"
    file.write_text(json.dumps(_config(address, max_workers, idle_seconds)))
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    command += [f"--port={port}", f"--dashboard-port={free_port()}", "--num-cpus=1"]
    command += [f"--autoscaling-config={file}", f"--resources={json.dumps({TRAIN_RESOURCE: 1})}"]
    command += [f"--object-store-memory={NODE['object_store_memory']}"]
    command += [f"--ray-client-server-port={free_port()}"]
    environment = {
        **{k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"},
        "RAY_FAKE_CLUSTER": "1",
        "RAY_AUTH_MODE": "disabled",
        "RAY_enable_autoscaler_v2": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_NODE_ID,
    }
    with (folder / "head.log").open("w") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield address
    finally:
        started = [psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)]
        for process in started:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        head.wait()
