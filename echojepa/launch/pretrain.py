"""Pretraining on Ray: Ray Train starts the workers, Ray Data feeds them, `pretrain` does the work.

run(load("configs/pretrain/demo.yaml", [], PretrainJob))
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2._internal.constants import (
    PREEMPTION_POLL_INTERVAL_S_ENV_VAR,
    WORKER_GROUP_START_TIMEOUT_S_ENV_VAR,
    WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR,
)
from ray.train.v2.api.callback import UserCallback
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

from echojepa import errors
from echojepa.config import changeable, to_tree, validate
from echojepa.data.sampling import Seeds
from echojepa.errors import BrokenInvariantError, UserError
from echojepa.objectives.masks import MaskSampler
from echojepa.on_ray.connect import (
    ClusterConfig,
    connected,
    wait_for_workers,
    worker_resources,
)
from echojepa.on_ray.preflight import preflight
from echojepa.on_ray.progress import Progress
from echojepa.on_ray.resize import SaveBeforeResize, SaveRequest
from echojepa.on_ray.worker import RayWorker
from echojepa.pretrain import PretrainConfig, cut_batch, pretrain
from echojepa.runs.checkpoint import step_of
from echojepa.runs.folder import RunFolder
from echojepa.runs.mirror import restore
from echojepa.runs.storage import Place
from echojepa.train.device import collective_backend, prepare_process

_FINAL = (UserError, BrokenInvariantError)
"""What a restart of the workers can't mend."""


class PretrainJob(PretrainConfig):
    """A pretraining run and where it runs."""

    cluster: ClusterConfig = changeable(ClusterConfig())


def run(
    job: PretrainJob, callbacks: Sequence[UserCallback] = (), *, show_progress: bool = True
) -> dict[str, float]:
    """Pretrain on the cluster, resuming by itself; returns the last logged metrics.

    Raises:
        UserError: what the user can mend, from the driver's checks or from the workers.
        TrainingFailedError: anything else, after `cluster.max_failures` restarts.
    """
    job = with_absolute_paths(job)
    clips = job.data.clips()
    masks = MaskSampler(job.objective.masks, job.grid(), Seeds(job.seed))
    fewest, most = job.cluster.num_workers, job.cluster.max_workers
    for num_workers in range(fewest, (most or fewest) + 1):
        cut_batch(job, num_workers)
    folder = RunFolder(job.run_dir)
    fetched = _from_mirror(job, folder, clips.fingerprint)
    folder.create(job, clips.fingerprint)
    if fetched is not None:
        folder.event("fetched_from_mirror", fetched)
    with connected(job.cluster):
        wait_for_workers(job.cluster)
        uses_gpus = bool(worker_resources(job.cluster).get("GPU"))
        preflight(job, folder, masks, cut_batch(job, fewest), uses_gpus=uses_gpus)
        trainer = _trainer(job, folder, callbacks)
        with Progress(folder, job.loop.num_steps, enabled=show_progress):
            return _fit(trainer)


def _from_mirror(job: PretrainJob, folder: RunFolder, fingerprint: str) -> int | None:
    """See that the mirror works; fetch a lost run from it. Returns the step fetched, if any."""
    if job.mirror is None:
        return None
    Place.of(job.mirror).check()
    fetched = restore(job.mirror, folder, job, fingerprint)
    return None if fetched is None else step_of(fetched)


def with_absolute_paths(job: PretrainJob) -> PretrainJob:
    """The job as processes in other working directories understand it."""

    def absolute(path: str | None) -> str | None:
        return path if path is None or "://" in path else str(Path(path).resolve())

    data = job.data.model_copy(update={"manifest": absolute(job.data.manifest)})
    paths = {
        name: absolute(getattr(job, name))
        for name in ("run_dir", "mirror", "init_from", "fork_from")
    }
    return job.model_copy(update={"data": data, **paths})


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


def _trainer(job: PretrainJob, folder: RunFolder, callbacks: Sequence[UserCallback]) -> Any:
    cluster = job.cluster
    _react_quickly(cluster)
    launch = f"launch_{time.time_ns()}"
    own = folder.path / "ray" / launch
    request = own / "save_requested"
    resources = worker_resources(cluster)
    workers: Any = cluster.num_workers
    if cluster.max_workers is not None:
        workers = (cluster.num_workers, cluster.max_workers)
    return ray.train.torch.TorchTrainer(
        _run_worker,
        train_loop_config={
            "config": to_tree(job),
            "stopped": str(own / "stopped.json"),
            "save_request": str(request),
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
                SaveBeforeResize(SaveRequest(request), cluster.resize_save_seconds),
                *callbacks,
            ],
        ),
    )


def _run_worker(settings: dict[str, Any]) -> dict[str, Any]:
    """What every Ray Train worker runs.

    What no restart can mend is written down before it is raised: Ray Train restarts the group for
    any error, and the restarted group then ends at once instead of failing the same way again.
    """
    config = validate(settings["config"], PretrainJob, "job")
    stopped = Path(settings["stopped"])
    if stopped.is_file():
        return {"error": json.loads(stopped.read_text())}
    local_workers = ray.train.get_context().get_local_world_size()
    prepare_process(num_threads=max(1, (os.cpu_count() or 1) // (2 * local_workers)))
    request = SaveRequest(Path(settings["save_request"]))
    worker = RayWorker(config.run_dir, request, config.cluster)
    with _LastWords(config.run_dir, stopped, worker.rank):
        metrics = pretrain(config, worker)
    request.close()
    return {"metrics": metrics}


class _LastWords:
    """Notes why a worker fails, for the run's owner and for its successors; catches nothing."""

    def __init__(self, run_dir: str, stopped: Path, rank: int) -> None:
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
                described = {"type": kind.__name__, "args": error.args}
                partial = self._stopped.with_name(f"stopped_{self._rank}.partial")
                partial.write_text(json.dumps(described))
                partial.replace(self._stopped)


def _fit(trainer: Any) -> dict[str, float]:
    try:
        outcome = trainer.fit().return_value or {}
    except TrainingFailedError as error:
        if isinstance(error, WorkerGroupError):
            for failure in error.worker_failures.values():
                cause = getattr(failure, "cause", failure)
                if isinstance(cause, _FINAL):
                    raise cause from None
        raise
    if "error" in outcome:
        raise getattr(errors, outcome["error"]["type"])(*outcome["error"]["args"])
    metrics: dict[str, float] = outcome["metrics"]
    return metrics
