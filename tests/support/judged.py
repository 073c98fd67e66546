"""Probe results without an encoder: predictions with errors of a stated size."""

from __future__ import annotations

import numpy as np

from echojepa.probes.fitting import BASELINE, ProbeResult
from echojepa.probes.intervals import patient_draws
from echojepa.probes.predictions import Predictions
from echojepa.probes.tasks import Task

NUM_PATIENTS = 40


def judged(task: Task, name: str, error: float, seed: int = 0) -> ProbeResult:
    """What features with errors of a deviation are worth on one task; truths depend on the task.

    Of a classification, `error` is the probability of a wrong answer.
    """
    rng = np.random.default_rng(seed)
    ids = np.array([f"s{i:02d}" for i in range(NUM_PATIENTS)])
    if task.kind == "regression":
        truth = np.linspace(20, 70, NUM_PATIENTS)
        output, classes = truth + error * rng.normal(size=NUM_PATIENTS), np.empty(0)
    else:
        classes = np.array(["A4C", "PLAX"])
        truth = classes[np.arange(NUM_PATIENTS) % 2]
        right = rng.random(NUM_PATIENTS) >= error
        output = np.where((classes[None] == truth[:, None]) == right[:, None], 0.9, 0.1)
    said = Predictions(task, ids, ids, truth, output, classes, {})
    return ProbeResult(
        task=task,
        features=name,
        chosen=None if name == BASELINE else {"strength": 1.0},
        on_val=said,
        test=said.metrics(),
        drawn=said.scores(patient_draws(ids)),
        predictions=said,
    )
