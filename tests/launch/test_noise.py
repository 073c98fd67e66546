"""The benchmarks behind curves over noise: what differs between levels, and what is run once."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.paths import ROOT

from echojepa.benchmark.noise import NoiseConfig
from echojepa.config import load
from echojepa.errors import ConfigError, IncompleteError
from echojepa.launch import benchmark, noise
from echojepa.launch.benchmark_arms import BenchmarkJob

FILE = ROOT / "configs" / "noise" / "phantom.yaml"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NoiseConfig:
    monkeypatch.chdir(ROOT)  # configs are relative to the working directory
    return load(FILE, [f"out={tmp_path}"], NoiseConfig)


def test_the_phantom_as_it_is_is_a_level_of_every_knob_and_run_once(config: NoiseConfig) -> None:
    jobs = noise.jobs_of(config)
    assert len(jobs) == 9
    folders = {job.out for job in jobs.values()}
    assert len(folders) == 7
    usual = {knob for (knob, _), job in jobs.items() if Path(job.out).name == "usual"}
    assert usual == set(config.knobs)
    for (knob, level), job in jobs.items():
        own = [s for s in job.phantom_settings if s.startswith(knob)]
        assert own == ([] if Path(job.out).name == "usual" else [f"{knob}={level!r}"])


def test_a_level_that_is_impossible_ends_it_at_once(config: NoiseConfig) -> None:
    knobs = {"speckle_contrast": (0.5, 1.5)}
    with pytest.raises(ConfigError, match="speckle_contrast"):
        noise.jobs_of(config.model_copy(update={"knobs": knobs}))


def test_a_benchmark_without_a_phantom_has_no_knobs(config: NoiseConfig) -> None:
    settings = ("phantom=null", "manifest=m.parquet")
    with pytest.raises(ConfigError, match="noise is a knob of the phantom"):
        noise.jobs_of(config.model_copy(update={"settings": settings}))


def test_a_level_that_fails_costs_the_others_nothing(
    config: NoiseConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def launched(job: BenchmarkJob) -> Path:
        tried.append(Path(job.out).name)
        raise IncompleteError("nothing learnt", "", job.out)

    monkeypatch.setattr(benchmark, "launch", launched)
    with pytest.raises(IncompleteError, match=r"no level has a result.*usual: nothing learnt"):
        noise.launch(config)
    assert len(tried) == len(set(tried)) == 7
    assert not (tmp_path / "noise.html").exists()
