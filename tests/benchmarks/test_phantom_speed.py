"""How fast phantoms are written, and that writing many needs no more memory than writing few.

pytest -m soak tests/benchmarks/test_phantom_speed.py -s
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.memory import Memory

from echojepa.data.manifest.file import read_manifest
from echojepa.launch.phantom import launch
from echojepa.on_ray.connect import ClusterConfig, connected
from echojepa.on_ray.tasks import map_on_ray
from echojepa.phantom import PhantomConfig, write_phantom

pytestmark = [pytest.mark.soak, pytest.mark.timeout(2 * 3600)]
TWO_HUNDRED = PhantomConfig(num_studies=50, views=("A4C", "PLAX", "PSAX-PM", "SC4C"), num_frames=64)
MANY = PhantomConfig(
    num_studies=5000, views=("A4C", "A2C", "PLAX", "PSAX-PM"), num_frames=1, size=32
)
ALLOWED_GROWTH = 0.15


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """This machine's cores."""
    with connected(ClusterConfig()):
        yield


def test_two_hundred_clips(cluster: None, tmp_path: Path) -> None:
    """Against one process without Ray, and against the time that the clips play."""
    few = TWO_HUNDRED.model_copy(update={"num_studies": 5})
    began = time.monotonic()
    write_phantom(few, tmp_path / "alone")
    alone = (time.monotonic() - began) * 10
    began = time.monotonic()
    rows = read_manifest(launch(TWO_HUNDRED, tmp_path / "all", ClusterConfig())).to_pylist()
    together = time.monotonic() - began
    plays = sum(row["num_frames"] / row["native_fps"] for row in rows)
    print(f"\n{len(rows)} clips in {together:.0f} s on {os.cpu_count()} cores")
    print(f"{alone / together:.2f} times as fast as one process; they play {plays:.0f} s")
    assert len(rows) == 200


def rendering() -> list[int]:
    """Processes of this test's own cluster that run tasks."""
    own = {p.pid for p in psutil.Process().children(recursive=True)}
    named = psutil.process_iter(["pid", "cmdline"])
    of_ray = [p.pid for p in named if (p.info["cmdline"] or [""])[0].startswith("ray::")]
    return sorted(own.intersection(of_ray))


def test_twenty_thousand_clips(cluster: None, tmp_path: Path) -> None:
    memory = Memory(lambda: {"driver": [os.getpid()], "workers": rendering()})
    settled: list[float] = []

    def progress(done: int, total: int) -> None:
        if done == total // 10:
            settled.append(time.time())

    memory.start()
    rows = read_manifest(write_phantom(MANY, tmp_path / "many", map_on_ray, progress))
    memory.stop.set()
    assert len(rows) == 20_000
    print()
    for name in ("driver", "workers", "object store"):
        mean, growth = memory.growth(name, settled[0])
        print(f"{name}: {mean:.0f} MiB, {growth:+.1%} over the last nine tenths")
        assert growth < ALLOWED_GROWTH
