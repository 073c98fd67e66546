"""Ray Tune behind one function: trials of a trainable, the weak ones stopped early by ASHA.

Li et al., "A System for Massively Parallel Hyperparameter Tuning" (2020).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import ray
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import ASHAScheduler

from echojepa.errors import ClusterError
from echojepa.on_ray.internals import UserCallback, dashboard_url

_TRIAL_CPUS = 0.01
"""A trial's own process only starts its workers and waits; Tune wants it to ask for something."""

Trial = Callable[[dict[str, Any], Path, UserCallback], None]
"""Runs one trial: its settings, its folder, and what its Train run must report to."""


class Search(NamedTuple):
    """What Tune must know of a search."""

    space: Mapping[str, Any]
    """By dotted key, what `choice`, `uniform` and `loguniform` make."""
    metric: str
    mode: Literal["max", "min"]
    num_trials: int
    max_concurrent: int
    max_steps: int
    grace_steps: int
    reduction_factor: float
    seed: int


def choice(values: list[Any]) -> Any:
    """One of several values."""
    return tune.choice(values)


def uniform(low: float, high: float) -> Any:
    """A number between two."""
    return tune.uniform(low, high)


def loguniform(low: float, high: float) -> Any:
    """A number between two, by its logarithm."""
    return tune.loguniform(low, high)


def fit(search: Search, trial: Trial, out: Path) -> tune.ResultGrid:
    """Run a search in `out / "tune"`, or go on with the one that is there.

    Raises:
        ClusterError: the connected cluster runs without its dashboard.
    """
    _require_dashboard()
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"  # a probe may fail now and then
    trainable = tune.with_parameters(_run_trial, trial=trial, address=_address())
    trainable = tune.with_resources(trainable, {"CPU": _TRIAL_CPUS})
    if (out / "tune" / "tuner.pkl").is_file():
        tuner = tune.Tuner.restore(str(out / "tune"), trainable, resume_unfinished=True)
        return tuner.fit()
    scheduler = ASHAScheduler(
        time_attr="step",
        max_t=search.max_steps,
        grace_period=search.grace_steps,
        reduction_factor=search.reduction_factor,
    )
    tuner = tune.Tuner(
        trainable,
        param_space=dict(search.space),
        tune_config=tune.TuneConfig(
            metric=search.metric,
            mode=search.mode,
            num_samples=search.num_trials,
            max_concurrent_trials=search.max_concurrent,
            scheduler=scheduler,
            search_alg=tune.search.BasicVariantGenerator(random_state=search.seed),
        ),
        run_config=tune.RunConfig(name="tune", storage_path=str(out)),
    )
    return tuner.fit()


def _run_trial(params: dict[str, Any], trial: Trial, address: str) -> None:
    """One trial, in a process of its own."""
    os.environ["RAY_ADDRESS"] = address  # Ray Train frees a stopped trial's workers through it
    trial(params, Path(tune.get_context().get_trial_dir()), TuneReportCallback())


def _require_dashboard() -> None:
    """Ray Train frees the workers of a stopped trial through the state API of the dashboard."""
    if not dashboard_url():
        raise ClusterError(
            "the cluster runs without its dashboard, so stopped trials would keep their workers",
            "Start Ray with the dashboard on (`--include-dashboard=true`).",
            _address(),
        )


def _address() -> str:
    return str(ray.get_runtime_context().gcs_address)
