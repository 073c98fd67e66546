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
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import ray
import torch

from echojepa.errors import ClusterError, first_line
from echojepa.on_ray.connect import require_listener
from echojepa.on_ray.internals import cluster_client, drain_node, resolve_address

_TIMEOUT_SECONDS = 2.0
_PATIENCE_SECONDS = 60.0
"""Of a machine that has just booted, whose metadata service may not answer yet."""
_GOOGLE_PREEMPTION_SECONDS = 20.0
"""Google says that a machine will end, not when. It gives 30 s; some have passed unasked."""
_GOOGLE_MAINTENANCE_SECONDS = 50.0
"""It gives 60 s, and machines with GPUs an hour."""
_GOOGLE_GPU_MAINTENANCE_SECONDS = 3500.0
_LEAD_SECONDS = 120.0
"""A machine that is to end much later is used until then."""
LEAST_SECONDS = 15.0
"""A drain tells Ray no earlier end than this: what is saved needs a step and a checkpoint."""
_AZURE_ENDS = {"Preempt", "Terminate", "Reboot", "Redeploy"}
_TRY_AGAIN = (OSError, HTTPException, ValueError, LookupError, TypeError, ClusterError)
"""A service that is away or talks nonsense, and a drain that was refused."""
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
            if error.code in (400, 401, 403, 404, 405):
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
        ends = datetime.strptime(told["time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
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
            gives = _GOOGLE_MAINTENANCE_SECONDS
            if torch.cuda.device_count():
                gives = _GOOGLE_GPU_MAINTENANCE_SECONDS
            return Notice("Compute Engine maintenance", time.time() + gives)
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


def find_cloud(metadata: Metadata, patience_seconds: float) -> Callable[[], Notice | None]:
    """How this machine learns of its end: a function that asks.

    Raises:
        ClusterError: this is not a machine of a cloud that gives notice, or for so long no
            metadata service has answered.
    """
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            asked = (cloud(metadata) for cloud in (_amazon, _google, _azure))
            ask = next((found for found in asked if found is not None), None)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"no cloud metadata service answers: {error}",
                    "Run this on machines of EC2, Compute Engine or Azure only.",
                    "watch-termination",
                ) from None
            time.sleep(1.0)
    if ask is None:
        raise ClusterError(
            "the metadata service is of no cloud known here (EC2, Compute Engine, Azure)",
            "Drain nodes yourself: `echojepa drain-node SECONDS`.",
            "watch-termination",
        )
    return ask


def drain(notice: Notice, address: str | None, node_id: str | None) -> None:
    """Drain a Ray node; null is the cluster and the node of this machine.

    Raises:
        ClusterError: there is no such cluster or node, or it did not accept it.
    """
    ends_at = max(notice.ends_at, time.time() + LEAST_SECONDS)
    try:
        address = resolve_address(address)
        require_listener(address)
        cluster = cluster_client(address)
        node = _choose(node_id, cluster.get_all_node_info().values())
        accepted, why = drain_node(cluster, node, notice.reason, int(ends_at * 1000))
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        accepted, why = False, first_line(error)
    if not accepted:
        raise ClusterError(
            f"the node could not be drained: {why}",
            "Check --address and --node-id, and that Ray runs there.",
            node_id or address or "this machine",
        )


def _choose(node_id: str | None, nodes: Iterable[Any]) -> str:
    """The id (hex) of a living node: the one that is named, or the only one of this machine.

    Ray itself takes the drain of a node that it does not know for granted.
    """
    addresses = {n.node_id.hex(): n.node_manager_address for n in nodes if n.state == n.ALIVE}
    if node_id is None:
        here = [n for n, address in addresses.items() if address == ray.util.get_node_ip_address()]
        if len(here) != 1:
            raise ValueError(f"{len(here)} Ray nodes live on this machine")
        return str(here[0])
    if node_id not in addresses:
        raise ValueError(f"no Ray node {node_id} lives there")
    return node_id


def watch(
    metadata: Metadata, address: str | None, node_id: str | None, poll_seconds: float
) -> Notice:
    """Wait for a notice, drain the node, and return; failures of either are tried again.

    Raises:
        ClusterError: there is no metadata service to ask.
    """
    ask = find_cloud(metadata, _PATIENCE_SECONDS)
    while True:
        try:
            notice = ask()
            if notice is not None:
                time.sleep(max(0.0, notice.ends_at - time.time() - _LEAD_SECONDS))
                drain(notice, address, node_id)
                return notice
        except _TRY_AGAIN as error:
            _log.warning("%s: %s; trying again", type(error).__name__, error)
        time.sleep(poll_seconds)
