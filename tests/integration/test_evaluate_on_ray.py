"""Features, probes and predictions by a real Ray cluster: the bytes that one process writes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from support.bench import EF, PLAIN, PRETRAINED, VIEW, Bench, changed_manifest
from support.command import echojepa
from support.here import Here
from support.mortal import DIED, GO_ON
from support.paths import ROOT, contents

from echojepa.config import to_tree
from echojepa.data.manifest.file import read_manifest, with_absolute_uris
from echojepa.data.manifest.schema import with_durations
from echojepa.embed import EmbedConfig, embed
from echojepa.encoders.custom import CustomSource
from echojepa.encoders.ours import OurSource, UntrainedSource
from echojepa.on_ray.stream import ClusterExecutor
from echojepa.predict import PredictConfig, predict
from echojepa.probes.extraction import Executor, ExtractConfig, extract
from echojepa.probes.features import TokenConfig
from echojepa.probes.fitting import ProbeResult

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands find the tests' own encoder; so do Ray's workers, in the folder they start in."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'tests'}")
    monkeypatch.chdir(ROOT / "tests")


@pytest.mark.parametrize("stages", ["one", "two"])
def test_a_cluster_writes_the_features_that_one_process_writes(
    ray_cluster: str, bench: Bench, tmp_path: Path, stages: str
) -> None:
    """Of two encoders that share clips and a third that does not; with tokens, and a lost file."""
    rows = with_absolute_uris(read_manifest(bench.manifest), bench.manifest.parent)
    uris = rows["uri"].to_pylist()
    manifest = changed_manifest(bench, tmp_path, "uri", [*uris[:-1], str(tmp_path / "gone.mp4")])
    rows = with_durations(read_manifest(manifest))
    ours = OurSource(path=str(bench.encoder))
    encoder = ours.load()
    small = encoder.clip.model_copy(update={"size": 32})
    size = encoder.network.encoder.config  # type: ignore[union-attr]
    sources = {
        "trained": ours,
        "twin": ours.model_copy(update={"random_seed": 1}),
        "small": UntrainedSource(encoder=size, clip=small),
    }
    config = ExtractConfig(shard_rows=8, tokens=TokenConfig(keep="grid", grid=(2, 2, 2)))

    def written(folder: Path, executor: Executor) -> dict[str, bytes]:
        found = extract(rows, sources, config, folder, executor)
        assert not found.failed
        return contents(folder)

    executor = ClusterExecutor(0.5, "one" if stages == "one" else "two")
    there = written(tmp_path / "ray", executor)
    here = written(tmp_path / "here", Here())
    assert len(here) == 3 * (1 + 3)
    assert there.keys() == here.keys()
    assert [name for name in here if here[name] != there[name]] == []


def test_what_was_killed_is_finished_by_the_same_command(
    ray_cluster: str, bench: Bench, tmp_path: Path
) -> None:
    """First the process that encodes, of which nobody notices; then the command itself."""
    settings = {"encoder": str(bench.encoder), "folder": str(tmp_path)}
    out = tmp_path / "ray"
    command = (
        "embed",
        "custom:support.mortal:build",
        bench.manifest,
        out,
        f"encoder.settings={json.dumps(settings)}",
        "shard_rows=4",
        f"cluster.address={ray_cluster}",
        "cpus_per_actor=2",  # a single one
    )
    program = Path(sys.executable).parent / "echojepa"
    first = subprocess.Popen([str(program), *map(str, command)])
    deadline = time.monotonic() + 120
    while not list(out.glob("features/*/00001.safetensors")):
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    assert (tmp_path / DIED).exists()
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not (out / "clips.parquet").exists()
    (tmp_path / GO_ON).touch()
    done = echojepa(*command)
    assert done.returncode == 0, done.stderr
    assert "24 clips, 0 of them unreadable" in done.stdout
    source = CustomSource(factory="support.mortal:build", settings=settings)
    config = EmbedConfig(
        encoder=source, manifest=str(bench.manifest), out=str(tmp_path / "here"), shard_rows=4
    )
    embed(config, Here())
    assert contents(out) == contents(tmp_path / "here")


def test_the_commands_say_what_one_process_says(
    ray_cluster: str,
    bench: Bench,
    evaluated: tuple[Path, list[ProbeResult]],
    tmp_path: Path,
) -> None:
    out, address = tmp_path / "out", f"cluster.address={ray_cluster}"
    tree = {
        "encoders": {PRETRAINED: {"kind": "ours", "path": str(bench.encoder)}},
        "manifest": str(bench.manifest),
        "out": str(out),
        "tasks": [to_tree(EF), to_tree(VIEW)],
        "page": to_tree(PLAIN),
        "cpus_per_actor": 0.5,
    }
    (tmp_path / "evaluate.yaml").write_text(yaml.safe_dump(tree))
    done = echojepa("evaluate", tmp_path / "evaluate.yaml", address)
    assert done.returncode == 0, done.stderr
    assert str(out / "report.html") in done.stdout
    there, here = (
        json.loads((folder / "results.json").read_text()) for folder in (out, evaluated[0])
    )
    assert there == here
    assert contents(out / "probes") == contents(evaluated[0] / "probes")
    probe = out / "probes" / "ef" / PRETRAINED
    done = echojepa("predict", probe, bench.manifest, tmp_path / "predicted", address)
    assert done.returncode == 0, done.stderr
    assert "36 predictions" in done.stdout  # 24 clips and their 12 studies
    config = PredictConfig(
        probe=str(probe), manifest=str(bench.manifest), out=str(tmp_path / "here")
    )
    assert pq.read_table(tmp_path / "predicted" / "predictions.parquet") == predict(config, Here())
