"""From a fitted probe to the files that the public benchmark scores; see `cardiobench`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from echojepa.errors import ConfigError, PredictionError
from echojepa.probes.examples import Examples, Material
from echojepa.probes.fitting import Judged
from echojepa.probes.metrics import Floats, best_threshold
from echojepa.probes.predictions import group_means
from echojepa.probes.store import Features
from echojepa.probes.suites.cardiobench import (
    CardioBenchFile,
    Threshold,
    wanted_keys,
    write_cardiobench,
)
from echojepa.probes.suites.findings import TaskFindings


class BenchmarkFile(CardioBenchFile):
    """A file of the benchmark, and whose predictions go into it."""

    of: str
    """Name of our task."""
    features: str
    """Whose probe, as results are named."""
    positive: str | None = None
    """Of a decision: the class of our task that is a yes."""


def write_benchmark_file(
    spec: BenchmarkFile,
    found: Mapping[str, TaskFindings],
    features: Mapping[str, Features],
    rows: pa.Table,
    folder: Path,
) -> Path:
    """Write the predictions of the whole test split.

    Args:
        found: what the evaluation found, by task.
        features: by encoder.
        rows: of the manifest, labelled for this task, with the column of keys.
        folder: of all files of the benchmark.

    Raises:
        ConfigError: there is no such task, probe or class.
        PredictionError: a clip could not be read, or a key has no prediction.
    """
    one, judged = _chosen(spec, found)
    material = Material(one.examples, features[judged.encoder])
    key_of = dict(zip(rows["clip_id"].to_pylist(), rows[spec.key].to_pylist(), strict=True))
    tested = rows.filter(pc.equal(rows["split"], "test"))
    test = np.flatnonzero(one.examples.labels.splits == "test")
    keys = [key_of[one.examples.labels.clip_ids[i]] for i in test]
    names, group = np.unique(keys, return_inverse=True)
    output = group_means(judged.probe.predict(material, test), group)
    columns: dict[str, Sequence[object] | Floats] = {spec.key: names.tolist()}
    threshold = None
    if spec.task == "view":
        columns |= {f"prob_{c}": output[:, i] for i, c in enumerate(judged.probe.classes)}
    elif spec.is_decision:
        yes = _class_index(spec, judged)
        columns["probability"] = output[:, yes]
        threshold = _threshold(one.examples, judged, material, yes)
    else:
        columns["predicted"] = output
    if spec.has_views:
        view_of = dict(zip(rows[spec.key].to_pylist(), rows["view"].to_pylist(), strict=True))
        columns["view"] = [view_of[name] for name in names.tolist()]
    wanted = wanted_keys(spec, tested)
    return write_cardiobench(spec, pa.table(columns), wanted, folder, threshold)


def _chosen(spec: BenchmarkFile, found: Mapping[str, TaskFindings]) -> tuple[TaskFindings, Judged]:
    if spec.of not in found:
        raise ConfigError(
            f"there is no result of a task {spec.of!r}", f"Name one of {', '.join(found)}.", "of"
        )
    for judged in found[spec.of].judged:
        if judged.name == spec.features:
            return found[spec.of], judged
    names = ", ".join(judged.name for judged in found[spec.of].judged)
    raise ConfigError(
        f"there are no results of {spec.features!r}", f"Name one of {names}.", "features"
    )


def _class_index(spec: BenchmarkFile, judged: Judged) -> int:
    classes = [str(c) for c in judged.probe.classes]
    if spec.positive not in classes:
        raise ConfigError(
            f"class {spec.positive!r} is none of the task {spec.of!r}",
            f"Set positive to one of {', '.join(classes)}.",
            "positive",
        )
    return classes.index(spec.positive)


def _threshold(examples: Examples, judged: Judged, material: Material, yes: int) -> Threshold:
    """Chosen on validation."""
    labels = examples.labels
    val = np.flatnonzero(labels.splits == "val")
    truth = labels.values[val] == judged.probe.classes[yes]
    if truth.all() or not truth.any():
        raise PredictionError(
            "validation holds a single answer, so no threshold can be chosen",
            "Label others, or leave the file out.",
        )
    probability = judged.probe.predict(material, val)[:, yes]
    return Threshold(
        value=best_threshold(truth, probability), source="val, highest balanced accuracy"
    )
