"""An evaluation with several probes, corrupted videos and other patients: every table of it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.bench import EF, PRETRAINED, VIEW, Bench
from support.here import Here

from echojepa.data.corrupt import CorruptionSuite
from echojepa.data.manifest.file import read_manifest, with_absolute_uris, write_manifest
from echojepa.evaluate import evaluate
from echojepa.predict import PredictConfig, predict
from echojepa.probes.fitting import ProbeResult
from echojepa.probes.grid.config import GridConfig
from echojepa.probes.linear import LinearConfig
from echojepa.probes.probe_file import SavedProbe

GRID = GridConfig(head="mlp", lr=(1e-2,), weight_decay=(0.1,), epochs=2, warmup_epochs=(0,))
NAMES = [f"{PRETRAINED}, linear", f"{PRETRAINED}, grid"]
TASKS = ("ef", "view")
Line = dict[str, Any]


@dataclass(frozen=True)
class Done:
    """A finished evaluation."""

    out: Path
    results: list[ProbeResult]
    written: dict[str, Any]
    elsewhere: Path


def table_of(bench: Bench) -> pa.Table:
    """The phantom, by absolute paths."""
    return with_absolute_uris(read_manifest(bench.manifest), bench.manifest.parent)


def with_column(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    """One column replaced."""
    index = table.column_names.index(name)
    return table.set_column(index, name, pa.array(values, table.schema.field(name).type))


@pytest.fixture(scope="module")
def done(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """With a manifest of strangers, and one that tests on our training patients."""
    folder, table = tmp_path_factory.mktemp("parts"), table_of(bench)
    patients = [f"stranger {p}" for p in table["patient_id"].to_pylist()]
    strangers = with_column(table, "patient_id", patients)
    elsewhere = write_manifest(strangers, folder / "strangers" / "manifest.parquet")
    exchanged = {"train": "test", "test": "train", "val": "val"}
    splits = [exchanged[s] for s in table["split"].to_pylist()]
    swapped = write_manifest(
        with_column(table, "split", splits), folder / "swapped" / "manifest.parquet"
    )
    config = bench.config(
        folder / "out",
        probes={"linear": LinearConfig(), "grid": GRID},
        twin_seed=None,
        robustness=CorruptionSuite(presets=("undergain",), reencode=True),
        transfers={"elsewhere": str(elsewhere), "swapped": str(swapped)},
        overlap="mark",
    )
    results = evaluate(config, bench.here)

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    text = (folder / "out" / "results.json").read_text()
    written = json.loads(text, parse_constant=refuse)
    return Done(folder / "out", results, written, elsewhere)


def test_results_are_named_by_encoder_and_probe(done: Done) -> None:
    expected = [(task, name) for task in TASKS for name in (*NAMES, "predict mean")]
    assert [(r.task.name, r.features) for r in done.results] == expected
    lines = [(line["task"], line["features"]) for line in done.written["results"]]
    assert lines == expected
    assert {
        (line["task"], tuple(sorted(line["best_first"]))) for line in done.written["ranking"]
    } == {(task, tuple(sorted(NAMES))) for task in TASKS}
    assert len(done.written["differences"]) == 2 * 3
    chosen = {line["features"]: line["chosen"] for line in done.written["results"]}
    assert set(chosen[NAMES[0]]) == {"strength"} and chosen[NAMES[1]]["lr"] == 1e-2


def test_every_probe_is_saved_and_can_be_loaded(done: Done) -> None:
    folders = sorted(p.relative_to(done.out / "probes") for p in done.out.glob("probes/*/*"))
    assert folders == sorted(Path(task, name) for task in TASKS for name in NAMES)
    for folder in folders:
        saved = SavedProbe.load(done.out / "probes" / folder)
        task = EF if folder.parts[0] == "ef" else VIEW
        assert (saved.card.task, saved.card.name) == (task, folder.name)
        assert saved.card.probe.kind == folder.name.rpartition(" ")[2]
        assert saved.card.classes == (() if task is EF else ("A4C", "PSAX-PM"))


def finite(value: float) -> float | None:
    """As JSON has it."""
    return value if math.isfinite(value) else None


def test_the_table_of_scores_holds_every_score_of_every_group(done: Done) -> None:
    lines = pq.read_table(done.out / "results.parquet").to_pylist()
    key = ("task", "features", "group_column", "group", "metric")
    found = {tuple(line[name] for name in key): line for line in lines}
    assert len(found) == len(lines)
    for result in done.written["results"]:
        whole = {"column": None, "value": None, **result}
        for part in (whole, *result["groups"]):
            for metric, score in part["test"].items():
                at = (result["task"], result["features"], part["column"], part["value"], metric)
                line = found.pop(at)
                given = [finite(line[name]) for name in ("score", "low", "high")]
                assert given == [score, *part["test_intervals"][metric]]
    assert not found
    assert {line["group_column"] for line in lines} >= {None, "vendor", "population"}


def test_what_is_not_defined_is_null(done: Done) -> None:
    """A vendor with one test patient has no area: the file is read by strict readers, too."""
    of_one = [
        group
        for line in done.written["results"]
        for group in line["groups"]
        if line["task"] == "ef" and group["num_test"] == 1
    ]
    assert of_one and all(group["test"]["mae"] is not None for group in of_one)
    nulls = json.dumps(done.written["results"]).count("null")
    assert nulls > 0


def test_every_probe_is_judged_on_every_corruption(done: Done) -> None:
    found = {
        (p["task"], p["encoder"], p["kind"], p["severity"]): p for p in done.written["robustness"]
    }
    assert set(found) == {
        (task, name, kind, step)
        for task in TASKS
        for name in NAMES
        for kind in ("undergain",)
        for step in range(4)
    }
    for (task, name, _, severity), point in found.items():
        assert point["test"].keys() == done.results[0 if task == "ef" else 3].test.keys()
        if severity == 0:
            assert (point["skill_lost"], point["skill_lost_interval"]) == (0, [0, 0])
        clean = found[task, name, "undergain", 0]["test"]
        assert (point["test"] == clean) or severity > 0
    strong = found["ef", NAMES[0], "undergain", 3]
    assert strong["test"] != found["ef", NAMES[0], "undergain", 0]["test"]
    assert "Corrupted clips" in (done.out / "report.html").read_text()


def test_a_transfer_is_what_predict_says_of_the_other_manifest(done: Done, tmp_path: Path) -> None:
    for task in TASKS:
        for name in NAMES:
            (line,) = [
                t
                for t in done.written["transfers"]
                if (t["target"], t["task"], t["features"], t["calibration"])
                == ("elsewhere", task, name, "strict")
            ]
            config = PredictConfig(
                probe=str(done.out / "probes" / task / name),
                manifest=str(done.elsewhere),
                out=str(tmp_path / task / name),
            )
            said = {row["id"]: row for row in predict(config, Here()).to_pylist()}
            rows = [r for r in read_manifest(done.elsewhere).to_pylist() if r["split"] == "test"]
            if task == "ef":
                truth = {r["study_id"]: r["lvef"] for r in rows}
                errors = [abs(said[s]["predicted"] - value) for s, value in truth.items()]
                assert line["test"]["mae"] == pytest.approx(sum(errors) / 3, rel=1e-5)
            else:
                right = [said[r["clip_id"]]["predicted"] == r["view"] for r in rows]
                assert line["test"]["accuracy"] == pytest.approx(sum(right) / 6)


def test_patients_that_a_probe_knows_are_told_beside_its_transfer(done: Done) -> None:
    lines = done.written["transfers"]
    known = {(t["target"], t["probe_patients"]["num_overlapping"]) for t in lines}
    assert known == {("elsewhere", 0), ("swapped", 6)}
    ways = [(t["task"], t["features"], t["calibration"]) for t in lines if t["target"] == "swapped"]
    assert ways == [
        *(("ef", name, way) for name in NAMES for way in ("strict", "recalibrated")),
        *(("view", name, "strict") for name in NAMES),
    ]
    page = (done.out / "report.html").read_text()
    assert "probe 6; encoder none known of" in page and "probe none; encoder" in page
