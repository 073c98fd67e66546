"""Reaching a Ray cluster: attach to the one that is there, or start one on this machine."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import ray
import torch
from pydantic import Field, model_validator
from ray.autoscaler.sdk import request_resources

from echojepa.config import Strict
from echojepa.errors import ClusterError, first_line

TRAIN_RESOURCE = "train_worker"
"""Custom resource that makes room for one training worker on clusters without GPUs.

A worker there reserves no CPU: Ray Train keeps what it may need for itself with priority, and
decoding would starve forever.
"""

_LISTENER_SECONDS = 20.0


class ClusterConfig(Strict):
    """Where a job runs and how many workers it asks for."""

    address: str | None = None
    """Ray cluster to attach to; null takes $RAY_ADDRESS, and without it this machine."""
    num_workers: int = Field(1, gt=0)
    """Training workers; with `max_workers`, the fewest."""
    max_workers: int | None = Field(None, gt=0)
    """Most training workers: the group grows and shrinks with the cluster. Null is fixed."""
    resources_per_worker: dict[str, float] | None = None
    """Null is one GPU where the cluster has any, else one `train_worker`. State {GPU: 1} for GPU
    groups that are scaled up from zero."""
    resize_interval_seconds: float = Field(60.0, ge=0)
    """How often an elastic group considers another size."""
    resize_save_seconds: float = Field(120.0, ge=0)
    """How long a resize waits for the checkpoint that it asks for first."""
    hang_seconds: float = Field(1800.0, gt=0)
    """A worker that does no step for so long ends itself, and the group starts again. More than
    the longest step, checkpoint or probe takes."""
    first_step_seconds: float = Field(1800.0, gt=0)
    """The same for the first step of a group, which waits for decoders and compilers."""
    wait_seconds: float = Field(45.0, ge=0)
    """How long to wait for a cluster that is too small; autoscalers need minutes."""
    max_failures: int = Field(8, ge=-1)
    """Failures of the worker group survived in one launch; -1 survives any number."""
    object_store_bytes: int | None = Field(None, gt=0)
    """Of a cluster started on this machine; null leaves it to Ray, 30% of the memory."""
    worker_logs: bool = False
    """Show what workers print."""

    @model_validator(mode="after")
    def _ordered(self) -> ClusterConfig:
        if self.max_workers is not None and self.max_workers < self.num_workers:
            raise ValueError(f"max_workers {self.max_workers} is below {self.num_workers}")
        return self


@contextmanager
def connected(config: ClusterConfig) -> Iterator[None]:
    """Be connected to Ray; disconnects (and ends a cluster it started) unless already connected.

    Raises:
        ClusterError: there is no cluster at the address.
    """
    if ray.is_initialized():
        yield
        return
    address = _address(config)
    try:
        if address:
            require_listener(address)
            ray.init(
                address=address, logging_level=logging.WARNING, log_to_driver=config.worker_logs
            )
        else:
            _start_here(config)
    except (OSError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"no Ray cluster could be reached: {first_line(error)}",
            "Check cluster.address and $RAY_ADDRESS, or unset both to run on this machine.",
            address or "this machine",
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def started_here(config: ClusterConfig) -> bool:
    """Whether `connected` starts a cluster of its own, on this machine."""
    return not _address(config)


def _address(config: ClusterConfig) -> str | None:
    return config.address or os.environ.get("RAY_ADDRESS")


def _start_here(config: ClusterConfig) -> None:
    """A cluster of this machine alone. Workers get its GPUs if there is one for each, else none.

    Ray also counts GPUs that PyTorch can't use, and two ranks can't share one under NCCL.
    """
    num_workers = config.max_workers or config.num_workers
    num_gpus = torch.cuda.device_count()
    hidden = {} if num_gpus >= num_workers else {"CUDA_VISIBLE_DEVICES": ""}
    ray.init(
        address="local",
        num_gpus=0 if hidden else num_gpus,
        resources={
            TRAIN_RESOURCE: (config.resources_per_worker or {}).get(TRAIN_RESOURCE, 1) * num_workers
        },
        object_store_memory=config.object_store_bytes,
        runtime_env={"env_vars": hidden},
        logging_level=logging.ERROR,
        log_to_driver=config.worker_logs,
    )


def require_listener(address: str) -> None:
    """Raise `OSError` where nobody listens: Ray itself would go on trying for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), _LISTENER_SECONDS).close()


def worker_resources(config: ClusterConfig) -> dict[str, float]:
    """What one training worker reserves on the connected cluster."""
    if config.resources_per_worker is not None:
        return {"CPU": 0, **config.resources_per_worker}
    if ray.cluster_resources().get("GPU", 0) >= 1:
        return {"CPU": 0, "GPU": 1}
    return {"CPU": 0, TRAIN_RESOURCE: 1}


def _shortage(needed: dict[str, float], num_workers: int) -> dict[str, float]:
    """The resources of which the whole cluster has too little."""
    total = ray.cluster_resources()
    return {k: v for k, v in needed.items() if total.get(k, 0) < v * num_workers}


def wait_for_workers(config: ClusterConfig) -> None:
    """Return once the cluster has room for the fewest workers.

    Raises:
        ClusterError: it has not after `wait_seconds`.
    """
    needed = {name: share for name, share in worker_resources(config).items() if share}
    deadline = time.monotonic() + config.wait_seconds
    short = _shortage(needed, config.num_workers)
    if short:  # an autoscaler acts on this; without one it is a no-op
        request_resources(bundles=[needed] * config.num_workers)
    while short and time.monotonic() < deadline:
        time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))
        short = _shortage(needed, config.num_workers)
    request_resources(bundles=[])
    if not short:
        return
    total = ray.cluster_resources()
    name, each = next(iter(short.items()))
    fit = int(total.get(name, 0) // each)
    raise ClusterError(
        f"{config.num_workers} workers of {each:g} {name} each are asked for, the cluster has room "
        f"for {fit}",
        f"Lower cluster.num_workers, add nodes (started with --resources '{{\"{name}\": n}}' for "
        "CPU training), or raise cluster.wait_seconds for an autoscaler.",
        "cluster.num_workers",
    )
