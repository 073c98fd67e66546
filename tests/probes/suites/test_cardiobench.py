"""Prediction files: exactly what the benchmark's scorers read, complete, or not there at all."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from echojepa.config import validate
from echojepa.errors import ConfigError, ManifestError, PredictionError, StorageError
from echojepa.probes.suites.cardiobench import (
    KEYS,
    VIEW_CLASSES,
    CardioBenchFile,
    Threshold,
    wanted_keys,
    write_cardiobench,
)

NAMES = ["0XB", "0XA", "0XC"]
EF = CardioBenchFile(task="EF", dataset="EchoNet-Dynamic", key="file")
CHILDREN = CardioBenchFile(task="EF", dataset="EchoNet-Pediatric", key="file")
AS = CardioBenchFile(task="AS", dataset="TMED2", key="study_id")
VIEW = CardioBenchFile(task="view", dataset="TMED2", key="file")
HALF = Threshold(value=0.5, source="val")


def spec(task: str, dataset: str, **changes: Any) -> CardioBenchFile:
    """As a config gives it."""
    tree = {"task": task, "dataset": dataset, "key": "file", **changes}
    return validate(tree, CardioBenchFile, "")


def numbers(**changes: Any) -> pa.Table:
    """Predictions of the three names, in another order."""
    return pa.table({"file": ["0XA", "0XB", "0XC"], "predicted": [61.5, 55.0, 30.25], **changes})


def decisions(probabilities: list[Any], key: str = "file") -> pa.Table:
    """Probabilities of the three names in their order."""
    return pa.table({key: NAMES, "probability": probabilities})


def views(**columns: list[float]) -> pa.Table:
    """Probabilities of classes, of the three names in their order."""
    return pa.table({"file": NAMES, **{f"prob_{name}": said for name, said in columns.items()}})


def lines_of(path: Path) -> list[str]:
    """The lines of a file, which ends with a line's end."""
    text = path.read_bytes().decode()
    assert text.endswith("\n")
    return text[:-1].split("\n")


HEADERS = {
    ("EF", "EchoNet-Dynamic"): "FileName,EF_pred",
    ("EF", "EchoNet-Pediatric"): "FileName,EF_pred,view",
    ("EF", "CAMUS"): "patient_id,EF_pred",
    ("IVSd", "EchoNet-LVH"): "HashedFileName,IVSd_pred",
    ("LVIDd", "EchoNet-LVH"): "HashedFileName,LVIDd_pred",
    ("LVPWd", "EchoNet-LVH"): "HashedFileName,LVPWd_pred",
    ("AS", "TMED2"): "study_id,as_pred,prob_as",
    ("ASD", "CardiacNet"): "unique_id,asd_pred,prob_asd",
    ("PAH", "CardiacNet"): "unique_id,pah_pred,prob_pah",
    ("stemi", "HMCQU"): "unique_id,stemi_pred,prob_stemi",
    ("rwma", "segRWMA"): "patient_id,prob_rwma,rwma_pred",
    **{
        ("view", dataset): f"{key},view_pred,prob_A2C,prob_A3C,prob_A4C,prob_PSAX,prob_PLAX"
        for dataset, key in {
            "EchoNet-Dynamic": "FileName",
            "EchoNet-Pediatric": "FileName",
            "EchoNet-LVH": "HashedFileName",
            "CAMUS": "unique_id",
            "TMED2": "query_key",
            "CardiacNet": "unique_id",
            "HMCQU": "unique_id",
            "segRWMA": "patient_view_id",
        }.items()
    },
}


@pytest.mark.parametrize(("task", "dataset"), HEADERS, ids="-".join)
def test_header_place_and_number_of_lines_of_every_file(
    task: str, dataset: str, tmp_path: Path
) -> None:
    changes = {"window": "A3C", "file_name": "ours_a3c.csv"} if task == "rwma" else {}
    wanted = spec(task, dataset, **changes)
    if task == "view":
        said = views(A4C=[0.5, 0.5, 0.5], Other=[0.5, 0.5, 0.5])
    elif wanted.is_decision:
        said = decisions([0.2, 0.5, 0.9])
    else:
        said = numbers(**({"view": ["A4C", "PSAX", "A4C"]} if wanted.has_views else {}))
    threshold = HALF if wanted.is_decision else None
    path = write_cardiobench(wanted, said, NAMES, tmp_path / "new", threshold)
    name = "ours_a3c.csv" if task == "rwma" else "echojepa.csv"
    assert path == tmp_path / "new" / dataset / task / name
    header, *lines = lines_of(path)
    assert header == HEADERS[task, dataset]
    assert [line.split(",")[0] for line in lines] == NAMES
    assert len(list(path.parent.glob("*.csv"))) == 1  # the scorer takes every one for a model


def test_every_task_of_every_data_set_has_its_header_here() -> None:
    assert {(task, dataset) for dataset, tasks in KEYS.items() for task in tasks} == set(HEADERS)


def test_lines_come_in_the_wanted_order_and_read_back_exactly(tmp_path: Path) -> None:
    exact = numbers(predicted=pa.array([1 / 3, 55.0, 0.1 + 0.2]))
    path = write_cardiobench(EF, exact, NAMES, tmp_path)
    assert lines_of(path)[1:] == ["0XB,55.0", "0XA,0.3333333333333333", "0XC,0.30000000000000004"]
    single = numbers(predicted=pa.array([61.1, 55.0, 30.0], pa.float32()))
    read = float(lines_of(write_cardiobench(EF, single, NAMES, tmp_path))[2].split(",")[1])
    assert read == float(np.float32(61.1))
    odd = pa.table({"file": ['a,"b"'], "predicted": [1]})
    path = write_cardiobench(EF, odd, ['a,"b"'], tmp_path)
    assert list(csv.reader(path.open())) == [["FileName", "EF_pred"], ['a,"b"', "1.0"]]


def test_the_threshold_decides_and_is_noted_with_its_source(tmp_path: Path) -> None:
    threshold = Threshold(value=0.3, source="val, highest balanced accuracy")
    path = write_cardiobench(AS, decisions([0.29, 0.3, 1], "study_id"), NAMES, tmp_path, threshold)
    assert lines_of(path)[1:] == ["0XB,0,0.29", "0XA,1,0.3", "0XC,1,1.0"]
    note = json.loads(path.with_suffix(".json").read_text())
    assert note["threshold"] == {"value": 0.3, "source": "val, highest balanced accuracy"}
    assert note["num_keys"] == 3
    assert note["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert validate(note["settings"], CardioBenchFile, "") == AS


def test_views_are_added_up_and_other_is_what_is_left(tmp_path: Path) -> None:
    ours = spec("view", "TMED2", classes={"PSAX-AV": "PSAX", "PSAX-AP": "PSAX", "TEE": "Other"})
    said = views(
        **{"A4C": [0.375, 0.25, 0.0], "PSAX-AV": [0.25, 0.25, 0.1], "PSAX-AP": [0.25, 0.0, 0.2]},
        **{"TEE": [0.0, 0.25, 0.3], "Other": [0.125, 0.25, 0.4]},
    )
    path = write_cardiobench(ours, said, NAMES, tmp_path)
    rows = list(csv.DictReader(path.open()))
    assert [row["view_pred"] for row in rows] == ["PSAX", "Other", "Other"]
    assert [float(row["prob_PSAX"]) for row in rows] == pytest.approx([0.5, 0.25, 0.3])
    assert [float(row["prob_PLAX"]) for row in rows] == [0.0, 0.0, 0.0]
    for row in rows:  # as the scorer derives and decides
        shown = [float(row[f"prob_{name}"]) for name in VIEW_CLASSES[:-1]]
        every = [*shown, min(max(1 - sum(shown), 0.0), 1.0)]
        assert row["view_pred"] == VIEW_CLASSES[int(np.argmax(every))]


def scored(path: Path, labels: list[dict[str, str]], column: str) -> tuple[float, int]:
    """Mean absolute error and number, by the benchmark's way of joining."""
    said: dict[str, str] = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            said.setdefault(row["FileName"], row[column])  # of doubled keys the first
    tested = [label for label in labels if label["Split"] == "test"]  # in lower case
    both = [(float(x["EF"]), float(said[x["FileName"]])) for x in tested if x["FileName"] in said]
    errors = [abs(true - predicted) for true, predicted in both]
    return sum(errors) / len(errors), len(errors)


def test_the_benchmarks_scorer_finds_our_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = {f"0X{i:04X}": float(rng.uniform(20, 75)) for i in range(50)}
    split = {name: ("TEST" if i % 2 else "TRAIN") for i, name in enumerate(truth)}
    listed = [{"FileName": n, "EF": repr(ef), "Split": split[n].lower()} for n, ef in truth.items()]
    manifest = pa.Table.from_pylist(
        [{"file": n, "split": split[n].lower(), "take": t} for n in truth for t in (0, 1)]
    )
    wanted = wanted_keys(EF, manifest.filter(pc.field("split") == "test"))

    said = {name: truth[name] + float(rng.normal(0, 5)) for name in reversed(wanted)}
    table = pa.table({"file": list(said), "predicted": list(said.values())})
    path = write_cardiobench(EF, table, wanted, tmp_path)
    ours = float(np.mean([abs(said[name] - truth[name]) for name in wanted]))
    assert scored(path, listed, "EF_pred") == (pytest.approx(ours, abs=1e-12), 25)


Write = Callable[[Path], Path]
BAD: dict[str, tuple[Write, str]] = {
    "missing": (
        lambda p: write_cardiobench(EF, numbers(), [*NAMES, "d", "e", "f", "g"], p),
        "keys without a prediction: 4 ('d', 'e', 'f', ...)",
    ),
    "doubled": (
        lambda p: write_cardiobench(EF, numbers(file=["0XA", "0XB", "0XB"]), NAMES, p),
        "keys with several predictions: 1 ('0XB')",
    ),
    "wanted twice": (
        lambda p: write_cardiobench(EF, numbers(), [*NAMES, "0XA"], p),
        "keys wanted twice: 1 ('0XA')",
    ),
    "not wanted": (
        lambda p: write_cardiobench(EF, numbers(), NAMES[:1], p),
        "predictions of keys not wanted: 2 ('0XA', '0XC')",
    ),
    "nothing wanted": (lambda p: write_cardiobench(EF, numbers(), [], p), "no key, is wanted"),
    "not a number": (
        lambda p: write_cardiobench(EF, numbers(predicted=[np.inf, None, np.nan]), NAMES, p),
        "values of 'predicted' that are not finite: 3 ('0XA', '0XB', '0XC')",
    ),
    "above 1": (
        lambda p: write_cardiobench(AS, decisions([0.2, 1.01, -0.01], "study_id"), NAMES, p, HALF),
        "values of 'probability' outside of 0 to 1: 2 ('0XA', '0XC')",
    ),
    "sum": (
        lambda p: write_cardiobench(
            VIEW, views(A4C=[0.5, 0.4, 0.5], PLAX=[0.5, 0.5, 0.5]), NAMES, p
        ),
        "probabilities that do not add up to 1: 1 ('0XA')",
    ),
    "unknown class": (
        lambda p: write_cardiobench(VIEW, views(A4C=[1, 1, 1], A5C=[0, 0, 0]), NAMES, p),
        "classes the benchmark lacks: 1 ('A5C')",
    ),
    "unknown view": (
        lambda p: write_cardiobench(CHILDREN, numbers(view=["A4C", "PLAX", "PSAX"]), NAMES, p),
        "views other than A4C and PSAX: 1 ('PLAX')",
    ),
    "truth": (
        lambda p: write_cardiobench(EF, numbers(EF=[1.0, 2.0, 3.0]), NAMES, p),
        "the columns are file, predicted, EF",
    ),
    "no classes": (lambda p: write_cardiobench(VIEW, numbers(), NAMES, p), "the columns are"),
    "texts": (
        lambda p: write_cardiobench(EF, numbers(predicted=["1", "2", "3"]), NAMES, p),
        "the column 'predicted' holds string",
    ),
    "no threshold": (
        lambda p: write_cardiobench(AS, decisions([0, 1, 1], "study_id"), NAMES, p),
        "the task needs a threshold",
    ),
    "a threshold": (
        lambda p: write_cardiobench(EF, numbers(), NAMES, p, HALF),
        "the task has no threshold",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_would_be_scored_wrongly_is_not_written(case: str, tmp_path: Path) -> None:
    write, message = BAD[case]
    with pytest.raises(PredictionError) as caught:
        write(tmp_path / "out")
    assert message in str(caught.value)
    assert "Nothing has been written" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_older_file_survives_a_refusal_and_a_full_disk_is_told(tmp_path: Path) -> None:
    path = write_cardiobench(EF, numbers(), NAMES, tmp_path)
    before = path.read_bytes()
    with pytest.raises(PredictionError):
        write_cardiobench(EF, numbers(predicted=[float("nan")] * 3), NAMES, tmp_path)
    assert path.read_bytes() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="predictions cannot be written"):
        write_cardiobench(EF, numbers(), NAMES, tmp_path / "file")


def test_wanted_keys_come_from_the_named_column_of_the_manifest() -> None:
    rows = pa.table({"file": ["b", "a", "b"], "number": [1, 2, 3], "gap": ["a", None, None]})
    assert wanted_keys(EF, rows) == ["b", "a"]
    for column, message in (("x", "text column 'x'"), ("number", "text"), ("gap", "2 rows")):
        with pytest.raises(ManifestError, match=message):
            wanted_keys(spec("EF", "CAMUS", key=column), rows)


@pytest.mark.parametrize(
    ("task", "dataset", "changes"),
    [
        ("EF", "TMED2", {}),
        ("EF", "EchoNet", {}),
        ("rwma", "segRWMA", {"file_name": "ours_a2c.csv"}),
        ("rwma", "segRWMA", {"window": "A2C"}),
        ("rwma", "segRWMA", {"window": "A2C", "file_name": "ours_a4c.csv"}),
        ("rwma", "segRWMA", {"window": "A2C", "file_name": "a4c-ours_a2c.csv"}),
        ("EF", "CAMUS", {"window": "A2C"}),
        ("EF", "CAMUS", {"file_name": "ours_2ch.csv"}),
        ("AS", "TMED2", {"file_name": "our_model.csv"}),
        ("EF", "CAMUS", {"file_name": "ours.txt"}),
        ("EF", "CAMUS", {"file_name": ".csv"}),
        ("EF", "CAMUS", {"file_name": "../ours.csv"}),
        ("EF", "CAMUS", {"classes": {"A5C": "Other"}}),
        ("view", "CAMUS", {"classes": {"A5C": "A5C"}}),
    ],
)
def test_a_file_that_the_scorer_would_misread_cannot_be_asked_for(
    task: str, dataset: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError):
        spec(task, dataset, **changes)
