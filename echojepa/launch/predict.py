"""Predictions on Ray."""

from __future__ import annotations

import pyarrow as pa

from echojepa.launch.extraction import ExtractionJob
from echojepa.predict import PredictConfig, predict


class PredictJob(ExtractionJob, PredictConfig):
    """By what to predict, and where it is done."""


def launch(job: PredictJob) -> pa.Table:
    """Write predictions; see `predict`."""
    with job.executor() as executor:
        return predict(job, executor)
