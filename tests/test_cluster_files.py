"""Kubernetes manifests are valid, and the commands in them name real files and settings."""

from __future__ import annotations

import json
import shlex
from typing import Any

import jsonschema
import pytest
import yaml
from support.paths import DATA, ROOT
from typer.testing import CliRunner

from echojepa.cli.main import app
from echojepa.config import load
from echojepa.on_ray.termination import LEAST_SECONDS

MANIFESTS = sorted((ROOT / "cluster" / "kuberay").glob("*.yaml"))


@pytest.fixture(params=MANIFESTS, ids=lambda path: path.name)
def manifest(request: pytest.FixtureRequest) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(request.param.read_text())
    return loaded


def test_there_are_manifests() -> None:
    assert MANIFESTS


def test_it_fits_the_schema_of_its_kind(manifest: dict[str, Any]) -> None:
    schema = json.loads((DATA / f"{manifest['kind'].lower()}.v1.schema.json").read_text())
    jsonschema.validate(manifest, schema)


def test_the_schema_notices_an_unknown_field(manifest: dict[str, Any]) -> None:
    schema = json.loads((DATA / f"{manifest['kind'].lower()}.v1.schema.json").read_text())
    manifest["spec"]["enableAutoscaling"] = True
    with pytest.raises(jsonschema.ValidationError, match="enableAutoscaling"):
        jsonschema.validate(manifest, schema)


def test_the_entrypoint_is_a_job_of_this_repository(manifest: dict[str, Any]) -> None:
    from echojepa.launch.pretrain import PretrainJob

    python, script, config, *overrides = shlex.split(manifest["spec"]["entrypoint"])
    assert python == "python"
    assert (ROOT / script).is_file()
    job = load(ROOT / config, overrides, PretrainJob)
    groups = {g["groupName"]: g for g in manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"]}
    assert job.cluster.resources_per_worker == {"GPU": 1.0}
    assert job.cluster.max_workers == groups["gpu"]["maxReplicas"]


def test_it_is_autoscaled_with_gpus_for_training_and_cpus_for_decoding(
    manifest: dict[str, Any],
) -> None:
    cluster = manifest["spec"]["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["authOptions"]["mode"] == "token"
    for group in cluster["workerGroupSpecs"]:
        container = group["template"]["spec"]["containers"][0]
        has_gpu = "nvidia.com/gpu" in container["resources"]["limits"]
        assert has_gpu == (group["groupName"] == "gpu")
        assert container["securityContext"]["runAsNonRoot"] is True


def gibibytes(text: str) -> int:
    """Kubernetes' Gi in bytes."""
    assert text.endswith("Gi")
    return int(text.removesuffix("Gi")) * 2**30


def test_object_stores_fit_into_shared_memory(manifest: dict[str, Any]) -> None:
    """What does not fit Ray puts on the pod's disk; shared memory counts as the pod's own."""
    cluster = manifest["spec"]["rayClusterSpec"]
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        (shm,) = [v["emptyDir"] for v in pod["volumes"] if v["name"] == "shm"]
        assert shm["medium"] == "Memory"
        store = int(group["rayStartParams"]["object-store-memory"])
        assert store <= gibibytes(shm["sizeLimit"])
        memory = pod["containers"][0]["resources"]["limits"]["memory"]
        assert gibibytes(shm["sizeLimit"]) < gibibytes(memory) / 2


def test_a_gpu_pod_that_is_evicted_drains_its_node_within_its_grace(
    manifest: dict[str, Any],
) -> None:
    groups = {g["groupName"]: g for g in manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"]}
    pod = groups["gpu"]["template"]["spec"]
    shell, _, script = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert shell == "sh"
    drain, sleep = (shlex.split(part) for part in script.split("&&"))
    assert drain[:2] == ["echojepa", "drain-node"] and sleep[0] == "sleep"
    assert CliRunner().invoke(app, [drain[1], "--help"]).exit_code == 0
    assert LEAST_SECONDS <= float(drain[2]) < float(sleep[1])
    assert float(sleep[1]) + 30 < pod["terminationGracePeriodSeconds"], "starting it takes a while"
