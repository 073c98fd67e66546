"""Fixtures shared by all tests: small phantoms on disk, and tiny configs that train in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from support.s3 import Behaviour, served
from support.tiny import tiny_config

from echojepa.data.manifest.file import read_manifest, with_absolute_uris, write_manifest
from echojepa.phantom import PhantomConfig, write_phantom

if TYPE_CHECKING:
    from support.bench import Bench

    from echojepa.probes.fitting import ProbeResult

PLAIN = "not integration and not soak"
"""The marks of the plain tier, as pyproject.toml has them."""
NUM_PROCESSES = 2


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """The whole plain tier runs on two processes; single files, and what needs Ray, on one."""
    if hasattr(config, "workerinput"):
        return  # this is one of them
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if whole and config.option.markexpr == PLAIN and config.option.numprocesses is None:
        config.option.numprocesses = NUM_PROCESSES
        config.option.dist = "load"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Every test on one thread, where small models are fastest, and from a fixed seed."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def phantom_manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve hearts, two views each, 64 px, 24 frames: 24 real video files with a manifest."""
    config = PhantomConfig(
        num_studies=12,
        views=("A4C", "PSAX-PM"),
        size=64,
        num_frames=24,
        native_fps=(25.0, 30.0, 40.0, 50.0),
        follow_up_fraction=0.0,
        held_out_vendor=None,
        split_fractions=(0.5, 0.25, 0.25),
        seed=3,
    )
    return write_phantom(config, tmp_path_factory.mktemp("phantom"))


@pytest.fixture
def copied(phantom_manifest: Path, tmp_path: Path) -> Path:
    """A manifest of the phantom's videos that a test may change."""
    table = with_absolute_uris(read_manifest(phantom_manifest), phantom_manifest.parent)
    return write_manifest(table, tmp_path / "manifest.parquet")


@pytest.fixture(scope="session")
def bench(phantom_manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A randomly initialised encoder, exported, and its features of the phantom."""
    from support.bench import build  # what evaluations need takes seconds to import

    return build(phantom_manifest, tmp_path_factory.mktemp("bench") / "encoder")


@pytest.fixture(scope="session")
def evaluated(
    bench: Bench, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[ProbeResult]]:
    """An evaluation of the phantom's ejection fractions and views: its folder and results."""
    from echojepa.evaluate import evaluate

    out = tmp_path_factory.mktemp("evaluated") / "deep" / "out"
    return out, evaluate(bench.config(out), bench.here)


@pytest.fixture(scope="module")
def s3_server() -> Iterator[tuple[int, Behaviour]]:
    """A real S3 server: its port, and the behaviour of what lies in between."""
    with served() as made:
        yield made


@pytest.fixture
def tiny_tree(phantom_manifest: Path, tmp_path: Path) -> dict[str, Any]:
    """See `support.tiny`; of the phantom."""
    return tiny_config(phantom_manifest, tmp_path / "run")


@pytest.fixture
def tree(tiny_tree: dict[str, Any]) -> dict[str, Any]:
    """The tiny config, with metrics of every step."""
    tiny_tree["loop"]["log_every_steps"] = 1
    return tiny_tree
