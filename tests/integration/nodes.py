"""Nodes of clusters of several nodes on this machine: a seat for one worker each."""

from __future__ import annotations

from typing import Any

from echojepa.launch.connect import TRAIN_RESOURCE

NODE: dict[str, Any] = {
    "num_cpus": 1,
    "resources": {TRAIN_RESOURCE: 1},
    "object_store_memory": 300 * 2**20,
}
HEAD: dict[str, Any] = {**NODE, "include_dashboard": True, "dashboard_port": None}
"""With the dashboard on any free port: another cluster may have taken the usual one."""
HEAD_FOR_TWO: dict[str, Any] = {**HEAD, "resources": {TRAIN_RESOURCE: 2}}
