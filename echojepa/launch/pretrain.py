"""Pretraining as a job: checked on the driver, then handed to a group of workers.

launch(load("configs/pretrain/demo.yaml", [], PretrainJob))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from echojepa.config import changeable
from echojepa.on_ray import group
from echojepa.on_ray.connect import ClusterConfig, connected, wait_for_workers
from echojepa.on_ray.internals import UserCallback
from echojepa.on_ray.preflight import preflight
from echojepa.on_ray.progress import Progress
from echojepa.pretrain import PretrainConfig, cut_batch
from echojepa.randomness import Seeds
from echojepa.runs.checkpoint import step_of
from echojepa.runs.folder import RunFolder
from echojepa.runs.mirror import fetch_lost_run
from echojepa.runs.storage import StorageFolder


class PretrainJob(PretrainConfig):
    """A pretraining run and where it runs."""

    cluster: ClusterConfig = changeable(ClusterConfig())
    """The cluster and the workers."""


def launch(
    job: PretrainJob, callbacks: Sequence[UserCallback] = (), *, show_progress: bool = True
) -> dict[str, float]:
    """Pretrain on the cluster, resuming by itself; returns the last logged metrics.

    Raises:
        UserError: what the user can fix, from the driver's checks or from the workers.
        TrainingFailedError: anything else, after `cluster.max_failures` restarts.
    """
    job = with_absolute_paths(job).bound()
    clips = job.data.clips()
    objective = job.build_objective(Seeds(job.seed))
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
        preflight(job, folder, objective, cut_batch(job, fewest), job.cluster)
        with Progress(folder, job.loop.num_steps, enabled=show_progress):
            return group.train(job, job.cluster, folder, callbacks)


def _from_mirror(job: PretrainJob, folder: RunFolder, fingerprint: str) -> int | None:
    """Check that the mirror works; fetch a lost run from it. Returns the step fetched, if any."""
    if job.mirror is None:
        return None
    StorageFolder.of(job.mirror).check()
    fetched = fetch_lost_run(job.mirror, folder, job, fingerprint)
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
