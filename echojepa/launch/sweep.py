"""Hyperparameter search: Ray Tune over real pretraining runs, scored by their online probe.

Every trial is a whole `launch.pretrain.run` in a folder of its own, so it is itself a resumable,
audited run. ASHA (Li et al. 2020) stops the weak ones early. The same command resumes a search.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import ray
from pydantic import Field, model_validator
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import ASHAScheduler

from echojepa.config import Strict, amend, fingerprint, load, to_tree, validate
from echojepa.errors import ClusterError, ConfigError, StorageError
from echojepa.launch import pretrain
from echojepa.launch.pretrain import PretrainJob
from echojepa.on_ray.connect import ClusterConfig, connected, wait_for_workers

_TRIAL_CPUS = 0.01
"""A trial's own process only starts its workers and waits; Tune refuses to seat it for nothing."""


class Dimension(Strict):
    """One setting that is searched."""

    key: str
    """Dotted key of the pretraining config."""
    kind: Literal["choice", "uniform", "loguniform"]
    values: tuple[float | int | str | None, ...] | None = None
    """Of a choice."""
    low: float | None = None
    high: float | None = None

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
            return tune.choice(list(self.values or ()))
        return (tune.uniform if self.kind == "uniform" else tune.loguniform)(self.low, self.high)


class SweepJob(Strict):
    """A search."""

    out: str
    """Folder of the search, on storage that every node sees; one sub-folder per trial."""
    base: str
    """Pretraining config every trial starts from, relative to this working directory."""
    overrides: tuple[str, ...] = ()
    """key=value settings common to all trials."""
    search: tuple[Dimension, ...]
    metric: str
    """Reported metric that is optimised, for instance probe/lvef_r2."""
    mode: Literal["max", "min"] = "max"
    num_trials: int = Field(gt=0)
    max_concurrent: int = Field(1, gt=0)
    grace_steps: int = Field(gt=0)
    """No trial is stopped before this step."""
    reduction_factor: float = Field(2.0, gt=1)
    """At every rung, one in so many trials goes on."""
    seed: int = Field(0, ge=0)
    """Of the search itself; trials keep the base config's seed."""
    cluster: ClusterConfig = ClusterConfig()
    """Of the search; its workers are those of one trial times `max_concurrent`, and what each of
    them reserves is the base config's `cluster.resources_per_worker`."""


def run(job: SweepJob) -> dict[str, Any]:
    """Search; returns settings, score and folder of the trial with the best score at any probe.

    Raises:
        UserError: a bad config, folder or cluster.
    """
    out = Path(job.out).resolve()
    base = load(job.base, [*job.overrides, f"run_dir={out / 'trial'}"], PretrainJob)
    base = pretrain.with_absolute_paths(base)
    base.data.clips()
    _trial_job(base, out, {d.key: _example(d) for d in job.search})
    _check_metric(job, base)
    _check_folder(job, base, out)
    cluster = _whole(job, base)
    with connected(cluster):
        wait_for_workers(cluster)
        _require_dashboard()
        return _best(job, _tuner(job, base, out).fit(), out)


def _best(job: SweepJob, results: tune.ResultGrid, out: Path) -> dict[str, Any]:
    failed = [str(r.error).strip().splitlines()[-1] for r in results if r.error]
    if not any(job.metric in (r.metrics or {}) for r in results):
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


def _tuner(job: SweepJob, base: PretrainJob, out: Path) -> tune.Tuner:
    trainable = tune.with_parameters(_trial, base=to_tree(base), address=_address())
    trainable = tune.with_resources(trainable, {"CPU": _TRIAL_CPUS})
    if (out / "tune" / "tuner.pkl").is_file():
        return tune.Tuner.restore(str(out / "tune"), trainable, resume_unfinished=True)
    scheduler = ASHAScheduler(
        time_attr="step",
        max_t=base.loop.num_steps,
        grace_period=job.grace_steps,
        reduction_factor=job.reduction_factor,
    )
    return tune.Tuner(
        trainable,
        param_space={d.key: d.space() for d in job.search},
        tune_config=tune.TuneConfig(
            metric=job.metric,
            mode=job.mode,
            num_samples=job.num_trials,
            max_concurrent_trials=job.max_concurrent,
            scheduler=scheduler,
            search_alg=tune.search.BasicVariantGenerator(random_state=job.seed),
        ),
        run_config=tune.RunConfig(name="tune", storage_path=str(out)),
    )


def _trial(params: dict[str, Any], base: dict[str, Any], address: str) -> None:
    """One trial, in a process of its own: a pretraining run that reports to Tune."""
    os.environ["RAY_ADDRESS"] = address  # Ray Train frees a stopped trial's workers through it
    folder = Path(tune.get_context().get_trial_dir()) / "run"
    job = _trial_job(validate(base, PretrainJob, "sweep"), folder, params)
    pretrain.run(job, callbacks=[TuneReportCallback()], show_progress=False)


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


def _require_dashboard() -> None:
    """Ray Train frees the workers of a stopped trial through the state API of the dashboard."""
    if not ray._private.worker.global_worker.node.webui_url:
        raise ClusterError(
            "the cluster runs without its dashboard, so stopped trials would keep their workers",
            "Start Ray with the dashboard on (`--include-dashboard=true`).",
            _address(),
        )


def _address() -> str:
    return str(ray.get_runtime_context().gcs_address)
