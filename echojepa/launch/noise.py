"""Curves over noise: one benchmark per level of every knob, then one page.

Levels lie in OUT/levels, each an ordinary benchmark folder. What the phantom has anyway is a level
of every knob, and is run once.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from echojepa.benchmark.noise import Knob, NoiseConfig, read_points
from echojepa.benchmark.noise_page import NoiseCurves, write_curves
from echojepa.benchmark.outcome import JSON
from echojepa.config import load
from echojepa.errors import ConfigError, IncompleteError, StorageError, UserError, first_line
from echojepa.launch import benchmark
from echojepa.launch.benchmark_arms import BenchmarkJob
from echojepa.phantom import PhantomConfig

Level = tuple[Knob, float]


def jobs_of(config: NoiseConfig) -> dict[Level, BenchmarkJob]:
    """The benchmark of every level; those that are the same have the same folder.

    Raises:
        ConfigError: the benchmark's config is wrong, has no phantom, or a level is impossible.
    """
    levels = Path(config.out).resolve() / "levels"
    settings = [*config.settings, f"out={levels}"]
    base = load(config.benchmark, settings, BenchmarkJob)
    if base.phantom is None:
        raise ConfigError(
            "noise is a knob of the phantom, and this benchmark has a manifest",
            "Name a benchmark with `phantom`.",
            config.benchmark,
        )
    usual = load(base.phantom, list(base.phantom_settings), PhantomConfig)
    found: dict[Level, BenchmarkJob] = {}
    for knob, values in config.knobs.items():
        for value in values:
            own = () if value == getattr(usual, knob) else (f"{knob}={value!r}",)
            phantom_settings = [*base.phantom_settings, *own]
            load(base.phantom, phantom_settings, PhantomConfig)  # bounds
            update = {
                "out": str(levels / (own[0] if own else "usual")),
                "phantom_settings": tuple(phantom_settings),
            }
            found[knob, value] = base.model_copy(update=update)
    return found


def launch(config: NoiseConfig) -> Path:
    """Run what is missing; returns the folder with the page.

    Raises:
        UserError: a config is wrong, the folder cannot be written, no level has a result.
        IncompleteError: some level failed, in part or as a whole; everything else is written.
    """
    jobs = jobs_of(config)
    out, failed = Path(config.out).resolve(), dict[str, str]()
    by_folder = {job.out: job for job in jobs.values()}
    for number, job in enumerate(by_folder.values(), start=1):
        name = Path(job.out).name
        Console(stderr=True).rule(f"level {number} of {len(by_folder)}: {name}")
        try:
            benchmark.launch(job)
        except UserError as error:
            failed[name] = first_line(error)
    finished = {level: Path(job.out) for level, job in jobs.items() if _has_result(job)}
    named = "; ".join(f"{what}: {why}" for what, why in failed.items())
    if not finished:
        raise IncompleteError(f"no level has a result: {named}", "", config.out)
    opponents = next(iter(by_folder.values())).opponents
    try:
        write_curves(NoiseCurves(config, read_points(finished), opponents, failed), out)
    except OSError as error:
        raise StorageError(
            f"results cannot be written: {error.strerror}", "Free the folder.", config.out
        ) from None
    if failed:
        raise IncompleteError(
            f"failed: {named}",
            "Everything else is written; the same command tries again.",
            config.out,
        )
    return out


def _has_result(job: BenchmarkJob) -> bool:
    return (Path(job.out) / JSON).is_file()
