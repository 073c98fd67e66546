"""What plays beside a prediction is a clip that the probe has looked at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from support.bench import EF
from support.toy import features_of, fitted

from echojepa.data.decode.frames import ReadConfig
from echojepa.data.manifest.file import read_manifest, with_absolute_uris
from echojepa.data.manifest.schema import with_durations
from echojepa.pictures.evaluation import Page, PageConfig
from echojepa.probes.fitting import BASELINE, fit_baseline, judge
from echojepa.probes.suites.findings import Findings, TaskFindings


def test_films_are_of_clips_of_the_task(phantom_manifest: Path) -> None:
    """Of a task that looks at one view of two; clips of the other would not open."""
    rows = with_absolute_uris(read_manifest(phantom_manifest), phantom_manifest.parent)
    rows = with_durations(rows.sort_by("view"))
    task = EF.model_copy(update={"views": ("PSAX-PM",)})
    vectors = np.random.default_rng(0).normal(size=(24, 1, 5)).astype(np.float32)
    judged, material = fitted(rows, vectors, task)
    baseline = fit_baseline(judged.labels)
    worth = judge(BASELINE, baseline, material, judged.labels)
    findings = Findings(pretraining={}, features={judged.encoder: features_of(rows, vectors)})
    findings.tasks[task.name] = TaskFindings(material.examples, [judged], baseline, worth)
    uris = ["/no/such/file.mp4" if row["view"] == "A4C" else row["uri"] for row in rows.to_pylist()]
    table = rows.set_column(rows.column_names.index("uri"), "uri", pa.array(uris))
    config = PageConfig(maps=False, predictions=3, attention=0)
    page = Page(findings, table, ReadConfig(), config).report({}, (), 1, None)
    assert page.films.count("<video") == 2  # the best and the worst of three studies
