"""Pretraining on Ray: Ray Train starts the workers, Ray Data feeds them, `pretrain` does the work.

run(load("configs/pretrain/demo.yaml", [], PretrainJob))
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray.train
import ray.train.collective
import ray.train.torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.callback import UserCallback
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError
from torch import nn

from echojepa import errors
from echojepa.config import changeable, to_tree, validate
from echojepa.data import pipeline
from echojepa.data.manifest import open_clips
from echojepa.data.stream import Columns, DataConfig, Segment, StreamShape
from echojepa.errors import UserError
from echojepa.launch.connect import (
    ClusterConfig,
    connected,
    wait_for_workers,
    worker_resources,
)
from echojepa.launch.progress import Progress
from echojepa.objectives.masks import MaskSampler
from echojepa.pretrain import PretrainConfig, cut_batch, pretrain
from echojepa.train.device import collective_backend, prepare_process
from echojepa.train.engine import Engine, OptimizerConfig
from echojepa.train.run_folder import RunFolder
from echojepa.train.zero_engine import ZeroEngine

_STOPPED = "stopped.json"


class PretrainJob(PretrainConfig):
    """A pretraining run and where it runs."""

    cluster: ClusterConfig = changeable(ClusterConfig())


class RayWorker:
    """A Ray Train worker; see `train.worker.Worker`."""

    def __init__(self, run_dir: str) -> None:
        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self._run_id = hashlib.blake2b(run_dir.encode(), digest_size=8).hexdigest()

    def engine(self, module: nn.Module, config: OptimizerConfig, shape: StreamShape) -> Engine:
        """See `Worker`."""
        return ZeroEngine(module, config, (shape.micro_batch, shape.accumulation))

    def open_segment(
        self, data: DataConfig, seed: int, shape: StreamShape, segment: Segment
    ) -> Iterator[Columns]:
        """Rank 0 builds the pipeline; the iterators travel to the others by Ray Train."""
        iterators = None
        if self.rank == 0:
            iterators = pipeline.open_stream(data, seed, shape, segment, self._run_id)
        iterators = ray.train.collective.broadcast_from_rank_zero(iterators)
        assert iterators is not None
        return pipeline.blocks_of(iterators[self.rank])

    def report(self, metrics: dict[str, float]) -> None:
        """See `Worker`."""
        ray.train.report(metrics)


def run(
    job: PretrainJob, callbacks: Sequence[UserCallback] = (), *, show_progress: bool = True
) -> dict[str, float]:
    """Pretrain on the cluster, resuming by itself; returns the last logged metrics.

    Raises:
        UserError: what the user can mend, from the driver's checks or from the workers.
        TrainingFailedError: anything else, after `cluster.max_failures` restarts.
    """
    job = job.model_copy(update={"run_dir": str(Path(job.run_dir).resolve())})
    clips = open_clips(job.data.manifest, job.data.where)
    MaskSampler(job.objective.masks, job.grid(), job.seed)
    cut_batch(job, job.cluster.num_workers)
    folder = RunFolder(job.run_dir)
    folder.create(job, clips.fingerprint)
    (folder.path / _STOPPED).unlink(missing_ok=True)
    with connected(job.cluster):
        wait_for_workers(job.cluster)
        trainer = _trainer(job, folder, callbacks)
        with Progress(folder, job.loop.num_steps, enabled=show_progress):
            return _fit(trainer)


def _trainer(job: PretrainJob, folder: RunFolder, callbacks: Sequence[UserCallback]) -> Any:
    cluster = job.cluster
    resources = worker_resources(cluster)
    workers: Any = cluster.num_workers
    if cluster.max_workers is not None:
        workers = (cluster.num_workers, cluster.max_workers)
    return ray.train.torch.TorchTrainer(
        _run_worker,
        train_loop_config={"config": to_tree(job)},
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
            name=f"launch_{int(time.time())}",
            storage_path=str(folder.path / "ray"),
            failure_config=FailureConfig(max_failures=cluster.max_failures),
            callbacks=list(callbacks),
        ),
    )


def _run_worker(settings: dict[str, Any]) -> dict[str, Any]:
    """What every Ray Train worker runs.

    A `UserError` is written down before it is raised: Ray Train restarts the group for any error,
    and the restarted group then ends at once instead of failing the same way again and again.
    """
    config = validate(settings["config"], PretrainJob, "job")
    stopped = Path(config.run_dir) / _STOPPED
    if stopped.is_file():
        return {"error": json.loads(stopped.read_text())}
    prepare_process()
    try:
        return {"metrics": pretrain(config, RayWorker(config.run_dir))}
    except UserError as error:
        described = {"type": type(error).__name__, "args": error.args}
        stopped.write_text(json.dumps(described))
        raise


def _fit(trainer: Any) -> dict[str, float]:
    try:
        outcome = trainer.fit().return_value or {}
    except TrainingFailedError as error:
        if isinstance(error, WorkerGroupError):
            for failure in error.worker_failures.values():
                cause = getattr(failure, "cause", failure)
                if isinstance(cause, UserError):
                    raise cause from None
        raise
    if "error" in outcome:
        raise getattr(errors, outcome["error"]["type"])(*outcome["error"]["args"])
    metrics: dict[str, float] = outcome["metrics"]
    return metrics
