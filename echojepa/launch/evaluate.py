"""Evaluation on Ray: features by Ray Data actors, then `evaluate` on the driver."""

from __future__ import annotations

from pydantic import Field

from echojepa.evaluate import EvaluateConfig, evaluate
from echojepa.on_ray.connect import ClusterConfig, connected
from echojepa.on_ray.stream import ClusterExecutor
from echojepa.probes.fitting import ProbeResult


class EvaluateJob(EvaluateConfig):
    """An evaluation and where it runs."""

    cluster: ClusterConfig = ClusterConfig()
    """The cluster that encodes the clips."""
    cpus_per_actor: float = Field(1.0, gt=0)
    """CPUs one encoding actor reserves."""


def launch(job: EvaluateJob) -> list[ProbeResult]:
    """Encode every labelled clip once, fit all probes, write the report.

    Raises:
        UserError: see `evaluate`.
    """
    with connected(job.cluster):
        return evaluate(job, ClusterExecutor(job.cpus_per_actor))
