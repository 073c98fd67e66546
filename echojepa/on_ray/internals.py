"""Every private part of Ray that this package uses, and why there is no public one.

A new version of Ray breaks here first; `tests/on_ray/test_internals.py` says what.
"""

from __future__ import annotations

from typing import Any

import ray
from ray._private.authentication.authentication_token_setup import (
    ensure_token_if_auth_enabled,
    maybe_enable_token_auth_if_token_available,
)
from ray._private.services import canonicalize_bootstrap_address_or_die
from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.experimental.internal_kv import internal_kv_get_gcs_client
from ray.train.v2._internal.constants import (
    DEFAULT_PREEMPTION_DEADLINE_S,
    PREEMPTION_POLL_INTERVAL_S_ENV_VAR,
    WORKER_GROUP_START_TIMEOUT_S_ENV_VAR,
    WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR,
)
from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.context import get_train_context
from ray.train.v2._internal.execution.controller.state import ResizingState, TrainControllerState
from ray.train.v2.api.callback import UserCallback
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError
from ray.train.v2.api.preemption import PreemptionInfo

# ExecutionCallback    a pause between two rounds of Ray Data's scheduler: no setting gives one
# *_ENV_VAR            names of environment variables that Ray Train reads and does not export
# ControllerCallback   the controller tells of a resize to callbacks of this class only
# Notice               Ray's own key-value store has no public client
# drain_node           `ray drain-node` is a command, and there is no function behind it

__all__ = [
    "DEFAULT_PREEMPTION_DEADLINE_S",
    "PREEMPTION_POLL_INTERVAL_S_ENV_VAR",
    "WORKER_GROUP_START_TIMEOUT_S_ENV_VAR",
    "WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR",
    "ControllerCallback",
    "ExecutionCallback",
    "Notice",
    "PreemptionInfo",
    "ResizingState",
    "TrainControllerState",
    "TrainingFailedError",
    "UserCallback",
    "WorkerGroupError",
    "cluster_client",
    "dashboard_url",
    "drain_node",
    "notice_of_this_worker",
    "resolve_address",
]


def notice_of_this_worker() -> PreemptionInfo | None:
    """What Ray Train has told this worker; unlike `ray.train.get_preemption_info`, no barrier."""
    return get_train_context().preemption_context.preemption_info


def dashboard_url() -> str | None:
    """Address of the connected cluster's dashboard; None if it runs without."""
    url: str | None = ray._private.worker.global_worker.node.webui_url
    return url


def resolve_address(address: str | None) -> str:
    """Where a cluster's head listens; None is the cluster of this machine."""
    found: str = canonicalize_bootstrap_address_or_die(address or "auto")
    return found


def cluster_client(address: str) -> Any:
    """A client of the cluster's own records that needs no connected Ray; with its token, if any."""
    if not ray.is_initialized():
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
        ensure_token_if_auth_enabled(create_token_if_missing=False)
    return ray._raylet.GcsClient(address=address)


class Notice:
    """A short note that all processes of a launch agree by, kept by the cluster itself.

    A file on shared storage would not do: its clients cache the entries of folders, for up to a
    minute on NFS. Nor would an actor, which is lost with its node. A look takes 0.3 ms.
    """

    def __init__(self, launch: str, name: str) -> None:
        """`launch` is that of the run, so that no two launches share notes. Picklable."""
        self._key = f"echojepa/{launch}/{name}".encode()

    def write(self, text: str) -> None:
        """Write or replace it."""
        internal_kv_get_gcs_client().internal_kv_put(self._key, text.encode(), True, None)

    def read(self) -> str | None:
        """What it says; None if it has not been written."""
        found: bytes | None = internal_kv_get_gcs_client().internal_kv_get(self._key, None)
        return None if found is None else found.decode()

    def remove(self) -> None:
        """Take it away, if it is there."""
        internal_kv_get_gcs_client().internal_kv_del(self._key, False, None)


def drain_node(client: Any, node_id: str, reason: str, ends_at_ms: int) -> tuple[bool, str]:
    """Tell a cluster that a node will go; returns whether it accepted, and if not, why."""
    accepted, why = client.drain_node(node_id, DRAIN_NODE_REASON_PREEMPTION, reason, ends_at_ms)
    return accepted, why
