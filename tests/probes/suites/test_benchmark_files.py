"""Files for the public benchmark hold the whole test split, by the probe's numbers."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.bench import EF, PRETRAINED, VIEW, Bench

from echojepa.data.manifest.file import read_manifest
from echojepa.errors import IncompleteError
from echojepa.evaluate import evaluate
from echojepa.probes.suites.benchmark_files import BenchmarkFile

OF_EF = BenchmarkFile(task="EF", dataset="CAMUS", key="patient_id", of="ef", features=PRETRAINED)
OF_VIEW = BenchmarkFile(
    task="view",
    dataset="EchoNet-Dynamic",
    key="clip_id",
    of="view",
    features=PRETRAINED,
    classes={"PSAX-PM": "PSAX"},
)
DECISION = BenchmarkFile(
    task="ASD",
    dataset="CardiacNet",
    key="clip_id",
    of="view",
    features=PRETRAINED,
    positive="A4C",
)


def lines(path: Path) -> list[dict[str, str]]:
    """Of a CSV file."""
    with path.open() as file:
        return list(csv.DictReader(file))


def test_every_kind_of_file_holds_the_whole_test_split(bench: Bench, tmp_path: Path) -> None:
    evaluate(bench.config(tmp_path, cardiobench=(OF_EF, OF_VIEW, DECISION)), bench.here)
    rows = [r for r in read_manifest(bench.manifest).to_pylist() if r["split"] == "test"]
    said = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    of = {(p["task"], p["id"]): p["predicted"] for p in said if p["features"] == PRETRAINED}
    numbers = {r["patient_id"]: float(of["ef", r["study_id"]]) for r in rows}
    written = lines(tmp_path / "cardiobench" / OF_EF.path)
    found = {r["patient_id"]: float(r["EF_pred"]) for r in written}
    assert found == pytest.approx(numbers)
    views = {r["FileName"]: r for r in lines(tmp_path / "cardiobench" / OF_VIEW.path)}
    assert views.keys() == {r["clip_id"] for r in rows}
    for clip_id, line in views.items():
        assert line["view_pred"] == of["view", clip_id].replace("PSAX-PM", "PSAX")
        assert float(line["prob_A4C"]) + float(line["prob_PSAX"]) == pytest.approx(1)
    note = json.loads((tmp_path / "cardiobench" / DECISION.path).with_suffix(".json").read_text())
    threshold = note["threshold"]["value"]
    for line in lines(tmp_path / "cardiobench" / DECISION.path):
        probability = float(line["prob_asd"])
        assert probability == pytest.approx(float(views[line["unique_id"]]["prob_A4C"]))
        assert int(line["asd_pred"]) == (probability >= threshold)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"of": "rvsp"}, "no result of a task 'rvsp'"),
        ({"features": "nobody"}, "no results of 'nobody'"),
        ({"positive": "PLAX"}, "class 'PLAX' is none of the task"),
    ],
)
def test_what_is_not_there_is_an_error_that_costs_nothing_else(
    bench: Bench, tmp_path: Path, change: dict[str, str], message: str
) -> None:
    spec = DECISION.model_copy(update=change)
    with pytest.raises(IncompleteError, match=message):
        evaluate(bench.config(tmp_path, tasks=(VIEW,), cardiobench=(spec,)), bench.here)
    assert (tmp_path / "results.json").is_file()
    assert not list(tmp_path.glob("cardiobench/**/*.csv"))


def test_a_clip_that_cannot_be_read_is_missed(bench: Bench, tmp_path: Path) -> None:
    """The benchmark would score a file without it as if nothing were missing."""
    rows = read_manifest(bench.manifest).to_pylist()
    bad = next(r["clip_id"] for r in rows if r["split"] == "test")
    config = bench.config(tmp_path, tasks=(EF, VIEW), cardiobench=(OF_VIEW,))
    with pytest.raises(IncompleteError, match="keys without a prediction: 1"):
        evaluate(config, bench.here.without({bad}))
    assert np.all([p.suffix != ".csv" for p in tmp_path.rglob("*")])
