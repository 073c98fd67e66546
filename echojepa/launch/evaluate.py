"""Evaluation on Ray: features by Ray Data actors, then probes on the driver."""

from __future__ import annotations

from echojepa.evaluate import EvaluateConfig, find
from echojepa.launch.extraction import ExtractionJob
from echojepa.probes.fitting import ProbeResult
from echojepa.probes.suites.findings import Findings


class EvaluateJob(ExtractionJob, EvaluateConfig):
    """An evaluation and where it runs."""


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
    with job.executor() as executor:
        return find(job, executor)
