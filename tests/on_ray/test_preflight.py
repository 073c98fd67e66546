"""What a job is refused for before any worker starts; the way through is every run on Ray."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from echojepa.config import validate
from echojepa.errors import ClusterError, ManifestError, StorageError
from echojepa.on_ray.node import NodeReport, decode_first, look
from echojepa.on_ray.preflight import check_device, check_disk, check_nodes, needed_memory
from echojepa.pretrain import PretrainConfig, cut_batch
from echojepa.randomness import Seeds

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
    with pytest.raises(StorageError, match=r"10.0 GB are free, the checkpoints need 12.0 GB more"):
        check_disk([GOOD], 12 * 10**9, "run")


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
