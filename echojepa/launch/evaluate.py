"""Evaluation on Ray: features by Ray Data actors, then `evaluate` on the driver."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from echojepa.data.problem import Problem, raise_if_storage_failed
from echojepa.evaluate import EvaluateConfig, Features, evaluate, extractor, rows_to_encode
from echojepa.on_ray.connect import ClusterConfig, connected
from echojepa.on_ray.stream import extract_columns
from echojepa.probes.linear import ProbeResult


class EvaluateJob(EvaluateConfig):
    """An evaluation and where it runs."""

    cluster: ClusterConfig = ClusterConfig()
    """The cluster that encodes the clips."""
    cpus_per_actor: float = Field(1.0, gt=0)
    """CPUs one encoding actor reserves."""


def launch(job: EvaluateJob) -> list[ProbeResult]:
    """Encode every labelled clip once, fit all probes, write the report.

    Raises:
        UserError: a bad encoder, manifest or output folder.
    """
    rows = rows_to_encode(job)
    build = extractor(job)
    with connected(job.cluster):
        columns = extract_columns(rows, build, job.batch, job.cpus_per_actor)
    features = Features(
        clip_ids=[str(c) for c in columns.pop("clip_id")],
        problems=[Problem.from_text(str(p)) for p in columns.pop("problem")],
        by_encoder={name: np.asarray(values, np.float64) for name, values in columns.items()},
    )
    raise_if_storage_failed(features.problems)
    return evaluate(job, features)
