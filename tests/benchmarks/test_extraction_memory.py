"""Five thousand clips embedded in flat memory; killed in the middle and finished: the same bytes.

pytest -m soak tests/benchmarks/test_extraction_memory.py -s
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support.memory import resident_mib

from echojepa.data.manifest.file import read_manifest, with_absolute_uris, write_manifest
from echojepa.launch.phantom import launch
from echojepa.models.encoder import EncoderConfig, VideoEncoder
from echojepa.models.weights import save_encoder
from echojepa.on_ray.connect import ClusterConfig
from echojepa.phantom import PhantomConfig

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]
SOME = PhantomConfig(num_studies=50, views=("A4C", "A2C", "PLAX", "PSAX-PM"), num_frames=8, size=48)
NUM_COPIES = 25
TINY = EncoderConfig(width=48, depth=2, num_heads=4, patch_size=8)
CLIP = {"num_frames": 4, "fps": 12.0, "size": 48}
ALLOWED_GROWTH = 0.15
SETTLED = 0.3
"""This share of the shards is written before memory is measured."""


def embedding(encoder: Path, manifest: Path, out: Path) -> subprocess.Popen[bytes]:
    """The command, begun; tokens are kept as well."""
    command = [
        str(Path(sys.executable).parent / "echojepa"),
        "embed",
        *map(str, (encoder, manifest)),
    ]
    settings = ["tokens.keep=tokens", "shard_rows=64"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen(
        [*command, str(out), *settings], env=environment, start_new_session=True
    )


def sizes(process: subprocess.Popen[bytes]) -> dict[str, float]:
    """Resident MiB of the driver and of the largest actor."""
    children = psutil.Process(process.pid).children(recursive=True)
    actors = [p.pid for p in children if "MapWorker" in "".join(p.cmdline()[:1])]
    return {
        "driver": resident_mib(process.pid),
        "actors": max((resident_mib(pid) for pid in actors), default=0.0),
    }


def shards(out: Path) -> list[Path]:
    """What is written so far."""
    return sorted(out.glob("features/*/*.safetensors"))


def stop(process: subprocess.Popen[bytes]) -> None:
    """As a machine that goes away: the driver and all that it has started."""
    own = psutil.Process(process.pid)
    for child in [*own.children(recursive=True), own]:
        child.send_signal(signal.SIGKILL)
    process.wait()


def many_clips(folder: Path) -> Path:
    """Two hundred videos under twenty-five names each: to whoever reads them, other clips."""
    first = launch(SOME, folder / "phantom", ClusterConfig())
    table = with_absolute_uris(read_manifest(first), first.parent)
    (folder / "links").mkdir()
    rows = []
    for row in table.to_pylist():
        for copy in range(NUM_COPIES):
            link = folder / "links" / f"{copy}-{Path(row['uri']).name}"
            link.hardlink_to(row["uri"])
            names = {name: f"{row[name]}-{copy}" for name in ("clip_id", "study_id", "patient_id")}
            rows.append({**row, **names, "uri": str(link)})
    return write_manifest(pa.Table.from_pylist(rows, table.schema), folder / "manifest.parquet")


def test_five_thousand_clips(tmp_path: Path) -> None:
    manifest = many_clips(tmp_path)
    torch.manual_seed(0)
    encoder = save_encoder(tmp_path / "encoder", TINY, VideoEncoder(TINY).state_dict(), CLIP, "")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    number = -(-5000 // 64)
    samples: list[dict[str, float]] = []
    began = time.monotonic()
    process = embedding(encoder, manifest, whole)
    while process.poll() is None:
        if len(shards(whole)) > SETTLED * number:
            samples.append(sizes(process))
        time.sleep(1)
    assert process.returncode == 0
    print(f"\n5000 clips in {time.monotonic() - began:.0f} s on {os.cpu_count()} cores")
    assert len(pq.read_table(whole / "clips.parquet")) == 5000
    for name in ("driver", "actors"):
        values = np.array([s[name] for s in samples if s[name]])
        slope = np.polyfit(np.arange(len(values)), values, 1)[0] * len(values) / values.mean()
        print(f"{name}: {values.mean():.0f} MiB, {slope:+.1%} over the last {1 - SETTLED:.0%}")
        assert slope < ALLOWED_GROWTH
    process = embedding(encoder, manifest, broken)
    while len(shards(broken)) < number // 2:
        assert process.poll() is None
        time.sleep(0.2)
    stop(process)
    there = len(shards(broken))
    process = embedding(encoder, manifest, broken)
    assert process.wait() == 0
    print(f"killed after {there} of {number} shards, then finished")
    assert there < number
    for one, other in zip(shards(whole), shards(broken), strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
    for name in ("clips.parquet", "studies.parquet"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes()
