"""Looked at before a training worker takes a device: what would otherwise fail an hour later.

Every node sees the run folder, reads the same manifest, runs the same versions and keeps its object
store in memory; there is room for all that the run will keep; some of the first clips can be
decoded; and a worker's model fits its device.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import ray
import torch
from ray.exceptions import GetTimeoutError, RayTaskError, WorkerCrashedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from echojepa.cost import Footprint, count_parameters, footprint
from echojepa.data.problem import Problem, raise_if_storage_failed
from echojepa.data.stream import StreamShape
from echojepa.errors import BadDataError, ClusterError, ManifestError, StorageError
from echojepa.objectives.objective import Objective
from echojepa.on_ray.connect import ClusterConfig, started_here, worker_resources
from echojepa.on_ray.node import NodeReport, decode_first, look
from echojepa.pretrain import PretrainConfig
from echojepa.randomness import Seeds
from echojepa.runs.folder import RunFolder
from echojepa.train.device import device_memory_bytes

_NUM_CLIPS = 4
_PATIENCE_SECONDS = 30.0
_GB = 1e9
_GPU_SECONDS = 120.0
_RECORD_LINE_BYTES = 150
"""Of a step in the record of a rank, beside its samples."""
_RECORD_RANGE_BYTES = 30
"""Of the samples of a micro-batch there."""


def preflight(
    config: PretrainConfig,
    folder: RunFolder,
    objective: Objective,
    shape: StreamShape,
    cluster: ClusterConfig,
) -> None:
    """Check everything; `shape` is that of the fewest workers.

    Raises:
        StorageError: a node does not see the run folder, or it has no room for what will be kept.
        ManifestError: a node reads another manifest, or none.
        ClusterError: nodes run different versions, their object store is on disk, their driver is
            too old, or a worker does not fit its device.
        BadDataError: none of the first clips can be decoded.
    """
    needed = needed_memory(config, objective, shape)
    reports = _reports(config, folder)
    check_nodes(reports, folder.identity()["manifest_fingerprint"], str(folder.path))
    if not started_here(cluster):
        check_shared_memory(reports)
    files = [f for name in ("step_*", "abandoned_*") for f in folder.checkpoints.glob(f"{name}/*")]
    there = sum(f.stat().st_size for f in files)
    most = cluster.max_workers or cluster.num_workers
    check_disk(reports, needed_disk(config, needed.checkpoint, most) - there, str(folder.path))
    gpus = worker_resources(cluster).get("GPU")
    if gpus:
        check_device(needed, _device_bytes(gpus), shape)
    _check_clips(config)


def needed_disk(config: PretrainConfig, checkpoint: int, workers: int) -> int:
    """Bytes of all that a run keeps: checkpoints of so many bytes, and the record of samples.

    Checkpoints are the newest, two healthy ones, the one being written, those kept forever, those
    that rollbacks set aside, and two that wait to be copied to the mirror.
    """
    loop, monitor = config.loop, config.monitor
    kept = loop.keep_last + 3 + (2 if config.mirror else 0)
    if loop.keep_every_steps is not None:
        kept += loop.num_steps // loop.keep_every_steps
    if monitor.on_alarm == "roll_back":
        kept += monitor.max_rollbacks * loop.keep_last
    ranges = max(workers, -(-loop.global_batch // config.optimizer.max_micro_batch))
    per_step = workers * _RECORD_LINE_BYTES + ranges * _RECORD_RANGE_BYTES
    return kept * checkpoint + loop.num_steps * per_step


def needed_memory(config: PretrainConfig, objective: Objective, shape: StreamShape) -> Footprint:
    """What a worker of this job needs."""
    precision = getattr(torch, config.optimizer.precision)
    with torch.device("meta"):
        parameters = count_parameters(objective.module(precision), objective.facts.averages)
    return footprint(
        parameters,
        objective.passes(),
        shape,
        bytes_per_number=precision.itemsize,
        recompute=config.model.activation_checkpointing,
    )


def check_nodes(reports: Sequence[NodeReport], fingerprint: str, run_dir: str) -> None:
    """Raise for the first node that sees something else than the others."""
    for report in reports:
        if not report.sees_run:
            raise StorageError(
                f"node {report.host} does not see the run folder",
                "Put run_dir on storage that all nodes share.",
                run_dir,
            )
        if report.fingerprint != fingerprint:
            raise ManifestError(
                f"node {report.host} reads another manifest, or none: {report.fingerprint[:200]}",
                "Put the manifest on storage that all nodes share.",
                "data.manifest",
            )
        first = reports[0]
        differing = {n for n, v in report.versions.items() if v != first.versions.get(n)}
        if differing:
            name = sorted(differing)[0]
            raise ClusterError(
                f"node {report.host} has {name} {report.versions[name]}, node {first.host} "
                f"{first.versions[name]}",
                "Give all nodes the same image or environment.",
                "cluster",
            )


def check_shared_memory(reports: Sequence[NodeReport]) -> None:
    """Raise if a node's object store is larger than its shared memory: Ray puts it on disk then."""
    for report in reports:
        if report.shm_bytes is not None and report.object_store_bytes > report.shm_bytes:
            raise ClusterError(
                f"the object store of node {report.host} ({report.object_store_bytes / _GB:.1f} GB)"
                f" does not fit into its shared memory ({report.shm_bytes / _GB:.1f} GB): clips "
                "would go through its disk",
                "Enlarge /dev/shm (Docker: --shm-size, Kubernetes: the emptyDir), or start Ray "
                "with a smaller --object-store-memory.",
                "cluster",
            )


def check_disk(reports: Sequence[NodeReport], needed: int, run_dir: str) -> None:
    """Raise if what the run still needs does not fit; see `needed_disk`."""
    free = min(report.free_bytes for report in reports)
    if free < needed:
        raise StorageError(
            f"{free / _GB:.1f} GB are free, checkpoints and record need {needed / _GB:.1f} GB more",
            "Free space, choose another run_dir, lower loop.keep_last or monitor.max_rollbacks, or "
            "raise loop.keep_every_steps.",
            run_dir,
        )


def check_device(needed: Footprint, available: int, shape: StreamShape) -> None:
    """Raise if a worker's model states and activations do not fit its device."""
    if needed.total > available:
        raise ClusterError(
            f"a worker needs about {needed.total / _GB:.1f} GB (model states "
            f"{needed.states / _GB:.1f}, activations of {shape.micro_batch} clips "
            f"{needed.activations / _GB:.1f}), its device has {available / _GB:.1f}",
            "Lower optimizer.max_micro_batch, set model.activation_checkpointing, or use more "
            "workers.",
            "optimizer.max_micro_batch",
        )


def _reports(config: PretrainConfig, folder: RunFolder) -> list[NodeReport]:
    token = folder.path / "ray" / f"preflight_{time.time_ns()}"
    token.parent.mkdir(exist_ok=True)
    token.touch()
    try:
        reports: list[NodeReport] = ray.get(
            [
                ray.remote(look)
                .options(
                    num_cpus=0,
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
                )
                .remote(
                    str(folder.path),
                    str(token),
                    config.data.manifest,
                    int(node["Resources"].get("object_store_memory", 0)),
                )
                for node in ray.nodes()
                if node["Alive"]
            ]
        )
    finally:
        token.unlink()
    return reports


def _device_bytes(gpus: float) -> int:
    """Memory that a worker with so many GPUs, or such a part of one, has on its device."""
    task = ray.remote(device_memory_bytes).options(num_cpus=0, num_gpus=min(gpus, 1))
    try:
        found: int = ray.get(task.remote(), timeout=_GPU_SECONDS)
    except RayTaskError as error:
        raise error.cause from None
    except GetTimeoutError:
        raise ClusterError(
            f"no GPU was free for {_GPU_SECONDS:.0f} s",
            "Wait for the jobs that hold them, or add GPUs.",
            "cluster",
        ) from None
    return int(found * min(gpus, 1))


def _check_clips(config: PretrainConfig) -> None:
    """Decode a few clips on some node; a clip that kills its process is as bad as an unreadable."""
    read = config.data.read.model_copy(update={"patience_seconds": _PATIENCE_SECONDS})
    hasty = config.data.model_copy(update={"read": read})
    task = ray.remote(decode_first).options(num_cpus=0, max_retries=0)
    try:
        problems = ray.get(task.remote(hasty, Seeds(config.seed), 0, _NUM_CLIPS))
    except WorkerCrashedError:
        problems = [Problem("decode", "crash", "the process died")] * _NUM_CLIPS
    raise_if_storage_failed(problems)
    if all(problem is not None for problem in problems):
        raise BadDataError(
            f"none of the first {_NUM_CLIPS} clips can be decoded: {problems[0]}",
            "Check that all nodes reach the videos, with echojepa manifest validate --decode.",
            str(Path(config.data.manifest)),
        )
