"""A cloud's notice that this machine will be taken away, turned into a drain of its Ray node.

Runs beside Ray on every spot node (`echojepa watch-termination`). Each cloud tells its machines by
HTTP on a link-local address; which cloud it is, the answers say.

Amazon EC2 User Guide, "Spot Instance interruption notices"; Google Compute Engine, "Spot VMs" and
"Handle GPU host maintenance events"; Azure, "Scheduled Events for Linux VMs".
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import ray
from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION

from echojepa.errors import ClusterError
from echojepa.launch.connect import ClusterConfig, connected

_TIMEOUT_SECONDS = 2.0
_GOOGLE_PREEMPTION_SECONDS = 30.0
"""Google says that a machine will end, not when; this is the least it promises."""
_GOOGLE_MAINTENANCE_SECONDS = 60.0
_AZURE_ENDS = {"Preempt", "Terminate", "Reboot", "Redeploy"}
_log = logging.getLogger(__name__)


class Notice(NamedTuple):
    """This machine will be taken away."""

    reason: str
    ends_at: float
    """Unix time in seconds."""


class Metadata:
    """The metadata service of a cloud machine, at a base URL."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._open = build_opener(ProxyHandler({})).open  # link-local: never through a proxy

    def get(self, path: str, headers: dict[str, str], method: str = "GET") -> str | None:
        """The answer, or None if there is no such thing.

        Raises:
            OSError: nobody answers, or with another error.
        """
        request = Request(self._url + path, headers=headers, method=method)
        try:
            with self._open(request, timeout=_TIMEOUT_SECONDS) as answer:
                return str(answer.read().decode())
        except HTTPError as error:
            if error.code in (400, 403, 404, 405):
                return None
            raise


def _amazon(metadata: Metadata) -> Callable[[], Notice | None] | None:
    token_headers = {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
    if metadata.get("/latest/api/token", token_headers, "PUT") is None:
        return None

    def notice() -> Notice | None:
        token = metadata.get("/latest/api/token", token_headers, "PUT") or ""
        headers = {"X-aws-ec2-metadata-token": token}
        action = metadata.get("/latest/meta-data/spot/instance-action", headers)
        if action is None:
            return None
        told = json.loads(action)
        ends = datetime.strptime(told["time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
        return Notice(f"EC2 spot interruption: {told['action']}", ends.timestamp())

    return notice


def _google(metadata: Metadata) -> Callable[[], Notice | None] | None:
    headers, instance = {"Metadata-Flavor": "Google"}, "/computeMetadata/v1/instance"
    if metadata.get(f"{instance}/id", headers) is None:
        return None

    def notice() -> Notice | None:
        if metadata.get(f"{instance}/preempted", headers) == "TRUE":
            return Notice("Compute Engine preemption", time.time() + _GOOGLE_PREEMPTION_SECONDS)
        event = metadata.get(f"{instance}/maintenance-event", headers)
        if event == "TERMINATE_ON_HOST_MAINTENANCE":
            return Notice("Compute Engine maintenance", time.time() + _GOOGLE_MAINTENANCE_SECONDS)
        return None

    return notice


def _azure(metadata: Metadata) -> Callable[[], Notice | None] | None:
    headers = {"Metadata": "true"}
    name = metadata.get(
        "/metadata/instance/compute/name?api-version=2021-02-01&format=text", headers
    )
    if name is None:
        return None

    def notice() -> Notice | None:
        told = metadata.get("/metadata/scheduledevents?api-version=2020-07-01", headers)
        for event in json.loads(told or "{}").get("Events", []):
            if event["EventType"] in _AZURE_ENDS and name in event["Resources"]:
                begins = event["NotBefore"]  # empty once it has begun
                ends_at = parsedate_to_datetime(begins).timestamp() if begins else time.time()
                return Notice(f"Azure scheduled event: {event['EventType']}", ends_at)
        return None

    return notice


def find_cloud(metadata: Metadata) -> Callable[[], Notice | None]:
    """How this machine learns of its end: a function that asks.

    Raises:
        ClusterError: this is not a machine of a cloud that gives notice.
    """
    for cloud in (_google, _azure, _amazon):
        try:
            found = cloud(metadata)
        except OSError as error:
            raise ClusterError(
                f"no cloud metadata service answers: {error}",
                "Run this on machines of EC2, Compute Engine or Azure only.",
                "watch-termination",
            ) from None
        if found is not None:
            return found
    raise ClusterError(
        "the metadata service is of no cloud known here (EC2, Compute Engine, Azure)",
        "Drain nodes yourself: `ray drain-node`.",
        "watch-termination",
    )


def drain(notice: Notice, address: str | None, node_id: str | None) -> None:
    """Drain a Ray node; null is the cluster and the node of this machine.

    Raises:
        ClusterError: there is no such cluster, or it did not accept it.
    """
    with connected(ClusterConfig(address=address or "auto")):
        context = ray.get_runtime_context()
        node = node_id or context.get_node_id()
        try:
            accepted, why = ray._raylet.GcsClient(address=context.gcs_address).drain_node(
                node, DRAIN_NODE_REASON_PREEMPTION, notice.reason, int(notice.ends_at * 1000)
            )
        except (ValueError, ray.exceptions.RpcError) as error:
            accepted, why = False, str(error).splitlines()[0]
    if not accepted:
        raise ClusterError(
            f"the node could not be drained: {why}", "Check --address and --node-id.", node
        )


def watch(
    metadata: Metadata, address: str | None, node_id: str | None, poll_seconds: float
) -> Notice:
    """Wait for a notice, drain the node, and return; failures of either are tried again.

    Raises:
        ClusterError: there is no metadata service to ask.
    """
    ask = find_cloud(metadata)
    while True:
        try:
            notice = ask()
            if notice is not None:
                drain(notice, address, node_id)
                return notice
        except (OSError, ValueError, KeyError, ClusterError) as error:
            _log.warning("%s; trying again", error)
        time.sleep(poll_seconds)
