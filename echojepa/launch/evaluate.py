"""Evaluation on Ray: features by Ray Data actors, then probes on the driver."""

from __future__ import annotations

from pydantic import Field

from echojepa.evaluate import EvaluateConfig, find
from echojepa.on_ray.connect import ClusterConfig, connected
from echojepa.on_ray.stream import ClusterExecutor
from echojepa.probes.fitting import ProbeResult
from echojepa.probes.suites.findings import Findings


class EvaluateJob(EvaluateConfig):
    """An evaluation and where it runs."""

    cluster: ClusterConfig = ClusterConfig()
    """The cluster that encodes the clips."""
    cpus_per_actor: float = Field(1.0, gt=0)
    """CPUs one encoding actor reserves."""


def launch(job: EvaluateJob) -> list[ProbeResult]:
    """Encode every labelled clip once, fit all probes, write the report.

    Raises:
        UserError: see `echojepa.evaluate.evaluate`.
    """
    findings = find_on_ray(job)
    findings.raise_if_incomplete(job.out)
    return findings.results


def find_on_ray(job: EvaluateJob) -> Findings:
    """The same; returns all that was found, and what failed of it."""
    with connected(job.cluster):
        return find(job, ClusterExecutor(job.cpus_per_actor))
