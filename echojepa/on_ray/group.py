"""The group of training workers: Ray Train starts it, resizes it, and starts it again.

What happens to a group that must save, drawn once (`on_ray.worker` acts, `train.loop` calls it):

    training ---- a resize is due: the controller asks for a checkpoint, `resize.SaveRequest` -----+
        |                                                                                          |
        +-------- a node will go: Ray Train has told the worker, `drain.Drain.save_due` ----------+
                                                                                                   v
    after the step all ranks are at (`train.step.agree` carries the wish): every rank saves
                                                                                                   |
        resize: the request is taken away; all ranks stand still until Ray Train stops them  <-----+
        drain:  training goes on; once more before the deadline the same; then all ranks stand still

    Ray Train stops the group and starts another; that one finds the checkpoint (`runs.start`).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import ray.train
import ray.train.torch
from ray.train import FailureConfig, RunConfig, ScalingConfig

from echojepa import errors
from echojepa.errors import BrokenInvariantError, UserError
from echojepa.on_ray.connect import ClusterConfig, worker_resources
from echojepa.on_ray.internals import (
    PREEMPTION_POLL_INTERVAL_S_ENV_VAR,
    WORKER_GROUP_START_TIMEOUT_S_ENV_VAR,
    WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR,
    Notice,
    TrainingFailedError,
    UserCallback,
    WorkerGroupError,
)
from echojepa.on_ray.resize import SaveBeforeResize, SaveRequest
from echojepa.on_ray.worker import RayWorker
from echojepa.pretrain import PretrainConfig, pretrain
from echojepa.runs.folder import RunFolder
from echojepa.train.device import collective_backend, prepare_process

_FINAL = (UserError, BrokenInvariantError)
"""What a restart of the workers can't fix."""
_SAVE, _STOPPED = "save requested", "stopped"
"""Notes of a launch."""


def train(
    config: PretrainConfig,
    cluster: ClusterConfig,
    folder: RunFolder,
    callbacks: Sequence[UserCallback] = (),
) -> dict[str, float]:
    """Pretrain with a group of workers on the connected cluster; returns the last metrics.

    Raises:
        UserError: what the user can fix, from the workers.
        TrainingFailedError: anything else, after `cluster.max_failures` restarts.
    """
    _react_quickly(cluster)
    launch = f"launch_{time.time_ns()}"
    try:
        outcome = _trainer(config, cluster, folder, callbacks, launch).fit().return_value or {}
    except TrainingFailedError as error:
        if isinstance(error, WorkerGroupError):
            for failure in error.worker_failures.values():
                cause = getattr(failure, "cause", failure)
                if isinstance(cause, _FINAL):
                    raise cause from None
        raise
    finally:
        for name in (_SAVE, _STOPPED):
            Notice(launch, name).remove()
    if "error" in outcome:
        raise getattr(errors, outcome["error"]["type"])(*outcome["error"]["args"])
    metrics: dict[str, float] = outcome["metrics"]
    return metrics


def _react_quickly(cluster: ClusterConfig) -> None:
    """What Ray Train takes from the environment only; what is set there already stays.

    Spot machines give half a minute, so drains are looked for every second. An elastic group that
    counted on a node which is just going tries again with the others after 20 seconds, not 60. A
    worker that is frozen has no heartbeat of its own; Ray Train's limit for an answer follows it.
    """
    patience = min(600.0, max(60.0, cluster.hang_seconds))
    os.environ.setdefault(WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR, str(patience))
    os.environ.setdefault(PREEMPTION_POLL_INTERVAL_S_ENV_VAR, "1")
    if cluster.max_workers is not None:
        os.environ.setdefault(WORKER_GROUP_START_TIMEOUT_S_ENV_VAR, "20")


def _trainer(
    config: PretrainConfig,
    cluster: ClusterConfig,
    folder: RunFolder,
    callbacks: Sequence[UserCallback],
    launch: str,
) -> Any:
    request = SaveRequest(Notice(launch, _SAVE))
    resources = worker_resources(cluster)
    workers: Any = cluster.num_workers
    if cluster.max_workers is not None:
        workers = (cluster.num_workers, cluster.max_workers)
    return ray.train.torch.TorchTrainer(
        run_worker,
        train_loop_config={
            "config": config,
            "cluster": cluster,
            "stopped": Notice(launch, _STOPPED),
            "save_request": request,
        },
        torch_config=ray.train.torch.TorchConfig(
            backend="cpu:gloo,cuda:nccl" if resources.get("GPU") else collective_backend()
        ),
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=bool(resources.get("GPU")),
            resources_per_worker=resources,
            elastic_resize_monitor_interval_s=cluster.resize_interval_seconds,
        ),
        run_config=RunConfig(
            name=launch,
            storage_path=str(folder.path / "ray"),
            failure_config=FailureConfig(max_failures=cluster.max_failures),
            callbacks=[
                SaveBeforeResize(request, cluster.resize_save_seconds),
                *callbacks,
            ],
        ),
    )


def run_worker(settings: dict[str, Any]) -> dict[str, Any]:
    """What every Ray Train worker runs.

    What no restart can fix is written down before it is raised: Ray Train restarts the group for
    any error, and the restarted group then ends at once instead of failing the same way again.
    """
    config: PretrainConfig = settings["config"]
    stopped: Notice = settings["stopped"]
    reason = stopped.read()
    if reason is not None:
        return {"error": json.loads(reason)}
    local_workers = ray.train.get_context().get_local_world_size()
    prepare_process(num_threads=max(1, (os.cpu_count() or 1) // (2 * local_workers)))
    request: SaveRequest = settings["save_request"]
    worker = RayWorker(config.run_dir, request, settings["cluster"])
    with _FailureNote(config.run_dir, stopped, worker.rank):
        metrics = pretrain(config, worker)
    request.close()
    return {"metrics": metrics}


class _FailureNote:
    """Notes why a worker fails, for the run's owner and for its successors; catches nothing."""

    def __init__(self, run_dir: str, stopped: Notice, rank: int) -> None:
        self._folder = RunFolder(run_dir)
        self._stopped = stopped
        self._rank = rank

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        if error is None or kind is None:
            return
        with suppress(OSError):  # a full disk must not hide what is raised
            self._folder.event("attempt_failed", -1, rank=self._rank, error=kind.__name__)
        if isinstance(error, _FINAL):
            self._stopped.write(json.dumps({"type": kind.__name__, "args": error.args}))
