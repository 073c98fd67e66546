"""Predictions on Ray."""

from __future__ import annotations

import pyarrow as pa
from pydantic import Field

from echojepa.on_ray.connect import ClusterConfig, connected
from echojepa.on_ray.stream import ClusterExecutor
from echojepa.predict import PredictConfig, predict


class PredictJob(PredictConfig):
    """By what to predict, and where it is done."""

    cluster: ClusterConfig = ClusterConfig()
    """The cluster that encodes the clips."""
    cpus_per_actor: float = Field(1.0, gt=0)
    """CPUs one encoding actor reserves."""


def launch(job: PredictJob) -> pa.Table:
    """Write predictions; see `predict`."""
    with connected(job.cluster):
        return predict(job, ClusterExecutor(job.cpus_per_actor))
