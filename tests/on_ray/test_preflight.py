"""What a job is refused for before any worker starts; the way through is every run on Ray."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from echojepa.config import validate
from echojepa.errors import ClusterError, ManifestError, StorageError
from echojepa.on_ray.node import NodeReport, decode_first, look
from echojepa.on_ray.preflight import (
    _RECORD_LINE_BYTES,
    _RECORD_RANGE_BYTES,
    check_device,
    check_disk,
    check_nodes,
    check_shared_memory,
    needed_disk,
    needed_memory,
)
from echojepa.pretrain import PretrainConfig, cut_batch
from echojepa.randomness import Seeds
from echojepa.train.device import device_memory_bytes
from echojepa.train.feed import MicroBatch, StepBatch
from echojepa.train.record import SampleRecord

GIGABYTE = 10**9
GOOD = NodeReport("a", {"torch": "2.14.1", "ray": "2.60.0"}, True, 10**10, "abc")


def test_equal_nodes_pass() -> None:
    check_nodes([GOOD, replace(GOOD, host="b")], "abc", "run")


def test_a_node_that_does_not_see_the_run_folder() -> None:
    with pytest.raises(StorageError, match=r"node b does not see.*\[run\].*all nodes share"):
        check_nodes([GOOD, replace(GOOD, host="b", sees_run=False)], "abc", "run")


def test_a_node_with_another_manifest() -> None:
    other = replace(GOOD, host="b", fingerprint="[Errno 2] No such file")
    with pytest.raises(ManifestError, match="node b reads another manifest, or none: .Errno 2"):
        check_nodes([GOOD, other], "abc", "run")


def test_a_node_with_other_versions() -> None:
    other = replace(GOOD, host="b", versions={**GOOD.versions, "torch": "2.13.0"})
    with pytest.raises(ClusterError, match=r"node b has torch 2.13.0, node a 2.14.1"):
        check_nodes([GOOD, other], "abc", "run")


def test_a_disk_that_is_too_small() -> None:
    check_disk([GOOD], 9 * 10**9, "run")
    with pytest.raises(StorageError, match=r"10.0 GB are free, checkpoints and record need 12.0"):
        check_disk([GOOD], 12 * 10**9, "run")


def test_everything_that_a_run_keeps_is_counted(tiny_tree: dict[str, Any]) -> None:
    tiny_tree["monitor"] = {"on_alarm": "stop"}
    tiny_tree["loop"] |= {"num_steps": 1000, "keep_last": 2}

    def needed(**changes: Any) -> int:
        tree = {**tiny_tree, **{k: v for k, v in changes.items() if k != "loop"}}
        tree["loop"] = {**tiny_tree["loop"], **changes.get("loop", {})}
        return needed_disk(validate(tree, PretrainConfig, "test"), GIGABYTE, workers=4)

    least = needed()
    record = least - 5 * GIGABYTE  # two newest, two healthy, the one being written
    assert 1000 * 4 * 150 < record < 1000 * 4 * 400
    assert needed(loop={"keep_every_steps": 100}) - least == 10 * GIGABYTE
    assert needed(loop={"keep_last": 5}) - least == 3 * GIGABYTE
    assert needed(mirror="/mirror") - least == 2 * GIGABYTE
    assert needed(monitor={"max_rollbacks": 3}) - least == 3 * 2 * GIGABYTE


def test_the_record_takes_no_more_than_was_counted(tmp_path: Path) -> None:
    """Late in a long run, where numbers are long."""
    samples = np.arange(10**9, 10**9 + 128)
    micro = MicroBatch(
        samples=samples,
        clip_ids=[f"{s:016x}" for s in samples],
        weights=torch.ones(128),
        pixels=torch.zeros(128, 1),
        problems=[None] * 128,
        num_held_frames=0,
    )
    with SampleRecord(tmp_path, attempt=3, rank=1) as record:
        for step in range(10**6, 10**6 + 50):
            record.append(StepBatch(step, [micro] * 4, 0.0), applied=True)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size < 50 * (_RECORD_LINE_BYTES + 4 * _RECORD_RANGE_BYTES)


def test_an_object_store_that_is_larger_than_shared_memory() -> None:
    """KubeRay gives a pod of 32 GB an object store of 10 GB, whatever its /dev/shm has."""
    fits = replace(GOOD, object_store_bytes=8 * 10**9, shm_bytes=8 * 2**30)
    check_shared_memory([GOOD, fits])
    with pytest.raises(ClusterError, match=r"node b \(10.0 GB\) does not fit .* \(8.6 GB\).*shm"):
        check_shared_memory([fits, replace(fits, host="b", object_store_bytes=10**10)])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU that works")
def test_gpus_that_pytorch_cannot_use_are_one_line() -> None:
    with pytest.raises(ClusterError, match="PyTorch cannot use the GPUs of node") as caught:
        device_memory_bytes()
    assert "\n" not in str(caught.value)
    assert torch.__version__ in caught.value.remedy


def test_a_model_that_does_not_fit(tiny_tree: dict[str, Any]) -> None:
    config = validate(tiny_tree, PretrainConfig, "test")
    shape = cut_batch(config, 2)
    needed = needed_memory(config, config.build_objective(Seeds(config.seed)), shape)
    check_device(needed, needed.total, shape)
    with pytest.raises(ClusterError, match=r"needs about .* activations of 4 clips.*micro_batch"):
        check_device(needed, needed.total - 1, shape)


def test_a_node_looks(tiny_tree: dict[str, Any], tmp_path: Any) -> None:
    manifest = tiny_tree["data"]["manifest"]
    report = look(str(tmp_path), str(tmp_path / "none"), manifest)
    assert not report.sees_run
    assert len(report.fingerprint) == 64
    assert "No such file" in look(str(tmp_path), str(tmp_path), "none.parquet").fingerprint
    assert report.versions["torch"]
    data = validate(tiny_tree, PretrainConfig, "test").data
    assert decode_first(data, Seeds(0), 0, 2) == [None, None]


HALF_A_GPU = """
import ray
from echojepa.errors import ClusterError
from echojepa.on_ray.preflight import _device_bytes

ray.init(address="local", num_cpus=1, num_gpus=1, include_dashboard=False, logging_level="ERROR")

@ray.remote(num_gpus=0.5, num_cpus=0)
class Holder:
    def there(self):
        return True

holder = Holder.remote()
ray.get(holder.there.remote())
try:
    print("bytes", _device_bytes(0.5))
except ClusterError as error:
    print(error)
"""


@pytest.mark.integration
def test_a_trial_on_half_a_gpu_is_not_asked_for_a_whole_one() -> None:
    """The other half is taken. (Where there is no GPU, one is made up, and PyTorch says so.)"""
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    command = [sys.executable, "-c", HALF_A_GPU]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert "no GPU was free" not in done.stdout
    assert "bytes" in done.stdout or "PyTorch cannot use the GPUs" in done.stdout
    assert "Traceback" not in done.stdout
