"""Hyperparameter search: Ray Tune over real pretraining runs, scored by their online probe.

Every trial is a whole `launch.pretrain.launch` in a folder of its own, so it is itself a resumable,
audited run. ASHA (Li et al. 2020) stops the weak ones early. The same command resumes a search.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from echojepa.config import Strict, amend, fingerprint, load
from echojepa.errors import ConfigError, StorageError
from echojepa.launch import pretrain
from echojepa.launch.pretrain import PretrainJob
from echojepa.on_ray import tuning
from echojepa.on_ray.connect import ClusterConfig, connected, wait_for_workers
from echojepa.on_ray.internals import UserCallback


class Dimension(Strict):
    """One setting that is searched."""

    key: str
    """Dotted key of the pretraining config."""
    kind: Literal["choice", "uniform", "loguniform"]
    """One of `values`, or a number between `low` and `high`, as it is or by its logarithm."""
    values: tuple[float | int | str | None, ...] | None = None
    """Of a choice."""
    low: float | None = None
    """Least value of uniform and loguniform."""
    high: float | None = None
    """Largest value of uniform and loguniform."""

    @model_validator(mode="after")
    def _complete(self) -> Dimension:
        if self.kind == "choice" and not self.values:
            raise ValueError("a choice needs `values`")
        if self.kind != "choice" and (self.low is None or self.high is None):
            raise ValueError(f"{self.kind} needs `low` and `high`")
        return self

    def space(self) -> Any:
        """The same as Ray Tune's search space."""
        if self.kind == "choice":
            return tuning.choice(list(self.values or ()))
        assert self.low is not None and self.high is not None, "checked above"
        between = tuning.uniform if self.kind == "uniform" else tuning.loguniform
        return between(self.low, self.high)


class SweepJob(Strict):
    """A search."""

    command = "sweep"

    out: str
    """Folder of the search, on storage that every node sees; one sub-folder per trial."""
    base: str
    """Pretraining config every trial starts from, relative to this working directory."""
    overrides: tuple[str, ...] = ()
    """key=value settings common to all trials."""
    search: tuple[Dimension, ...]
    """The settings that are searched."""
    metric: str
    """Reported metric that is optimised, for instance probe/lvef_r2."""
    mode: Literal["max", "min"] = "max"
    """Whether more of the metric is better, or less."""
    num_trials: int = Field(gt=0)
    """Trials of the whole search."""
    max_concurrent: int = Field(1, gt=0)
    """Trials at a time."""
    grace_steps: int = Field(gt=0)
    """No trial is stopped before this step."""
    reduction_factor: float = Field(2.0, gt=1)
    """At every rung, one in so many trials goes on."""
    seed: int = Field(0, ge=0)
    """Of the search itself; trials keep the base config's seed."""
    cluster: ClusterConfig = ClusterConfig()
    """Of the search; its workers are those of one trial times `max_concurrent`, and what each of
    them reserves is the base config's `cluster.resources_per_worker`."""


def launch(job: SweepJob) -> dict[str, Any]:
    """Search; returns settings, score and folder of the trial with the best score at any probe.

    Raises:
        UserError: a bad config, folder or cluster.
    """
    out = Path(job.out).resolve()
    base = load(job.base, [*job.overrides, f"run_dir={out / 'trial'}"], PretrainJob)
    base = pretrain.with_absolute_paths(base).bound()
    base.data.clips()
    _trial_job(base, out, {d.key: _example(d) for d in job.search})
    _check_metric(job, base)
    _check_folder(job, base, out)
    cluster = _whole(job, base)
    with connected(cluster):
        wait_for_workers(cluster)
        return _best(job, tuning.fit(_search(job, base), partial(_trial, base), out), out)


def _search(job: SweepJob, base: PretrainJob) -> tuning.Search:
    return tuning.Search(
        space={d.key: d.space() for d in job.search},
        metric=job.metric,
        mode=job.mode,
        num_trials=job.num_trials,
        max_concurrent=job.max_concurrent,
        max_steps=base.loop.num_steps,
        grace_steps=job.grace_steps,
        reduction_factor=job.reduction_factor,
        seed=job.seed,
    )


def _trial(base: PretrainJob, params: dict[str, Any], folder: Path, callback: UserCallback) -> None:
    """One trial, in a process of its own: a pretraining run that reports to Tune."""
    job = _trial_job(base, folder / "run", params)
    pretrain.launch(job, callbacks=[callback], show_progress=False)


def _best(job: SweepJob, results: Any, out: Path) -> dict[str, Any]:
    failed = [str(r.error).strip().splitlines()[-1] for r in results if r.error]
    if not any(job.metric in _reported(r) for r in results):
        reason = f"; the first to fail said: {failed[0]}" if failed else ""
        raise ConfigError(
            f"no trial reported {job.metric!r}{reason}", "Check `metric` and the trials.", str(out)
        )
    best = results.get_best_result(job.metric, job.mode, scope="all")
    assert best.metrics_dataframe is not None, "the best trial has reported"
    scores = best.metrics_dataframe[job.metric]
    return {
        "config": best.config,
        job.metric: float(scores.max() if job.mode == "max" else scores.min()),
        "folder": best.path,
        "trials": len(results),
        "failed": failed,
    }


def _reported(result: Any) -> list[str]:
    """Names of all that a trial has ever reported."""
    return [] if result.metrics_dataframe is None else list(result.metrics_dataframe.columns)


def _trial_job(base: PretrainJob, folder: Path, params: dict[str, Any]) -> PretrainJob:
    """The pretraining config of a trial.

    Raises:
        ConfigError: a searched key does not exist, or a value does not fit.
    """
    settings = [f"{key}={_text(value)}" for key, value in params.items()]
    return amend(base, [*settings, f"run_dir={folder}"])


def _text(value: Any) -> str:
    return "null" if value is None else str(value)


def _example(dimension: Dimension) -> Any:
    return dimension.values[0] if dimension.values else dimension.low


def _check_metric(job: SweepJob, trial: PretrainJob) -> None:
    if trial.loop.probe_every_steps is None or trial.probe is None:
        raise ConfigError(
            "trials of a sweep are scored by the online probe, which the base config leaves out",
            "Set `probe` and loop.probe_every_steps there.",
            job.base,
        )


def _check_folder(job: SweepJob, base: PretrainJob, out: Path) -> None:
    """A folder belongs to one search: its settings are written down at the first start."""
    marker = out / "sweep.hash"
    searched = fingerprint(job.model_copy(update={"cluster": ClusterConfig()})) + fingerprint(base)
    try:
        out.mkdir(parents=True, exist_ok=True)
        if marker.is_file() and marker.read_text() != searched:
            raise ConfigError(
                "the folder holds a search with other settings", "Choose another `out`.", str(out)
            )
        marker.write_text(searched)
    except OSError as error:
        raise StorageError(
            f"the folder cannot be written: {error.strerror}", "Choose another `out`.", str(out)
        ) from None


def _whole(job: SweepJob, trial: PretrainJob) -> ClusterConfig:
    """What all concurrent trials need together."""
    workers = job.max_concurrent * trial.cluster.num_workers
    each = trial.cluster.resources_per_worker
    update = {"num_workers": workers, "max_workers": None, "resources_per_worker": each}
    return job.cluster.model_copy(update=update)
