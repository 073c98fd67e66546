"""Evaluation on Ray: features by Ray Data actors, then `evaluate` on the driver."""

from __future__ import annotations

from echojepa.evaluate import EvaluateConfig, evaluate
from echojepa.launch.extraction import ExtractionJob
from echojepa.probes.fitting import ProbeResult


class EvaluateJob(ExtractionJob, EvaluateConfig):
    """An evaluation and where it runs."""


def launch(job: EvaluateJob) -> list[ProbeResult]:
    """Encode every labelled clip once, fit all probes, write the report.

    Raises:
        UserError: see `evaluate`.
    """
    with job.executor() as executor:
        return evaluate(job, executor)
