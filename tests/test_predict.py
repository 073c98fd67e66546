"""Predictions of a saved probe: those of its evaluation, for any videos, without their labels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.bench import PRETRAINED, Bench
from support.here import Here

from echojepa.data.manifest.file import read_manifest, with_absolute_uris, write_manifest
from echojepa.errors import CheckpointError, ManifestError, StorageError
from echojepa.evaluate import evaluate
from echojepa.predict import PredictConfig, predict
from echojepa.probes.fitting import ProbeResult
from echojepa.probes.grid.config import GridConfig
from echojepa.probes.linear import LinearConfig
from echojepa.probes.tasks import Slot, Task

TWO_VIEWS = Task(
    name="two views",
    label="lvef",
    kind="regression",
    slots=(Slot(view="A4C"), Slot(view="PSAX-PM")),
)
GRID = GridConfig(head="attentive", num_heads=4, lr=(1e-3,), weight_decay=(0.1,), epochs=3)
Lines = dict[str, dict[str, Any]]
Evaluated = tuple[Path, list[ProbeResult]]


@pytest.fixture(scope="module")
def by_two_views(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """Two kinds of probes on studies of two views."""
    out = tmp_path_factory.mktemp("two-views")
    probes = {"linear": LinearConfig(), "grid": GRID}
    config = bench.config(out, tasks=(TWO_VIEWS,), probes=probes, twin_seed=None)
    return out, evaluate(config, bench.here)


def table_of(bench: Bench) -> pa.Table:
    """The phantom, by absolute paths."""
    return with_absolute_uris(read_manifest(bench.manifest), bench.manifest.parent)


def lost(table: pa.Table, clip_ids: set[str]) -> pa.Table:
    """The files of some clips do not exist."""
    rows = table.select(["clip_id", "uri"]).to_pylist()
    uris = ["/no/such/file.mp4" if r["clip_id"] in clip_ids else r["uri"] for r in rows]
    return table.set_column(table.column_names.index("uri"), "uri", pa.array(uris))


def predicted(probe: Path, table: pa.Table, folder: Path) -> tuple[Lines, Lines]:
    """Lines by id: of clips, of studies."""
    manifest = write_manifest(table, folder / "manifest.parquet")
    config = PredictConfig(probe=str(probe), manifest=str(manifest), out=str(folder / "out"))
    found = predict(config, Here())
    assert found == pq.read_table(folder / "out" / "predictions.parquet")
    lines = found.to_pylist()
    clips, studies = (
        {line["id"]: line for line in lines if line["level"] == level}
        for level in ("clip", "study")
    )
    assert len(clips) + len(studies) == len(lines)
    return clips, studies


def test_it_says_of_studies_what_the_evaluation_said(
    bench: Bench, evaluated: Evaluated, tmp_path: Path
) -> None:
    out, results = evaluated
    clips, studies = predicted(out / "probes" / "ef" / PRETRAINED, table_of(bench), tmp_path)
    assert (len(clips), len(studies)) == (24, 12)
    said = results[0].predictions
    assert results[0].features == PRETRAINED and len(said.ids) == 3
    for study, value, patient in zip(said.ids, said.output, said.patients, strict=True):
        assert studies[study]["predicted"] == pytest.approx(value, rel=1e-9)
        assert studies[study]["patient_id"] == patient
    for row in table_of(bench).to_pylist():
        assert clips[row["clip_id"]]["study_id"] == row["study_id"]
        assert clips[row["clip_id"]]["views"] == [row["view"]]
    for study, line in studies.items():
        own = [clip["predicted"] for clip in clips.values() if clip["study_id"] == study]
        assert line["predicted"] == pytest.approx(np.mean(own))
        assert line["views"] == ["A4C", "PSAX-PM"]
        assert (line["low"], line["high"]) == (None, None)  # validation is too small to say


def test_it_says_of_clips_what_the_evaluation_said(
    bench: Bench, evaluated: Evaluated, tmp_path: Path
) -> None:
    out, results = evaluated
    clips, studies = predicted(out / "probes" / "view" / PRETRAINED, table_of(bench), tmp_path)
    said = results[3].predictions
    assert results[3].features == PRETRAINED and len(said.ids) == 6
    for clip, shares, name in zip(said.ids, said.output, said.predicted, strict=True):
        found = [clips[clip][f"prob_{c}"] for c in said.classes]
        assert found == pytest.approx(shares.tolist(), rel=1e-9)
        assert clips[clip]["predicted"] == name
    for line in studies.values():
        assert line["prob_A4C"] + line["prob_PSAX-PM"] == pytest.approx(1)


@pytest.mark.parametrize("place", [0, 1], ids=["linear", "grid"])
def test_it_says_of_two_views_what_the_evaluation_said(
    bench: Bench, by_two_views: Evaluated, tmp_path: Path, place: int
) -> None:
    out, results = by_two_views
    result = results[place]
    clips, studies = predicted(
        out / "probes" / "two views" / result.features, table_of(bench), tmp_path
    )
    assert not clips and len(studies) == 12  # it says nothing of a clip alone
    for study, value in zip(result.predictions.ids, result.predictions.output, strict=True):
        assert studies[study]["predicted"] == pytest.approx(value, rel=1e-6)
        assert studies[study]["views"] == ["A4C", "PSAX-PM"]


@pytest.mark.parametrize("probe", ["linear", "grid"])
def test_a_missing_view_is_told_and_the_other_still_says_something(
    bench: Bench, by_two_views: Evaluated, tmp_path: Path, probe: str
) -> None:
    """One study without a view, one with an unreadable file, one of which nothing can be read."""
    table, out = table_of(bench), by_two_views[0]
    rows = table.to_pylist()
    studies = sorted({row["study_id"] for row in rows})
    clip = {(row["study_id"], row["view"]): row["clip_id"] for row in rows}
    left_out = clip[studies[0], "PSAX-PM"]
    bad = {clip[studies[1], "A4C"], clip[studies[2], "A4C"], clip[studies[2], "PSAX-PM"]}
    kept = pa.array([row["clip_id"] != left_out for row in rows])
    folder = out / "probes" / "two views" / f"{PRETRAINED}, {probe}"
    before = predicted(folder, table, tmp_path / "all")[1]
    clips, after = predicted(folder, lost(table.filter(kept), bad), tmp_path / "some")
    assert after.keys() == before.keys()
    assert after[studies[0]]["views"] == ["A4C"] and after[studies[1]]["views"] == ["PSAX-PM"]
    for study in studies[:2]:
        assert np.isfinite(after[study]["predicted"])
        assert after[study]["predicted"] != before[study]["predicted"]
        assert after[study]["problem"] is None
    nothing = after[studies[2]]
    assert (nothing["predicted"], nothing["views"]) == (None, [])
    assert nothing["problem"].startswith("open: missing")
    assert set(clips) == bad and {line["predicted"] for line in clips.values()} == {None}
    for study in studies[3:]:
        assert after[study]["predicted"] == pytest.approx(before[study]["predicted"], rel=1e-6)


@pytest.mark.parametrize("task", ["ef", "view"])
def test_an_unreadable_clip_has_its_problem_and_changes_no_other(
    bench: Bench, evaluated: Evaluated, tmp_path: Path, task: str
) -> None:
    table = table_of(bench)
    ids = table["clip_id"].to_pylist()
    study_of = dict(zip(ids, table["study_id"].to_pylist(), strict=True))
    bad = {ids[3], *(i for i in ids if study_of[i] == study_of[ids[10]])}
    probe = evaluated[0] / "probes" / task / PRETRAINED
    clips, studies = predicted(probe, table, tmp_path / "all")
    after, studies_after = predicted(probe, lost(table, bad), tmp_path / "some")
    assert after.keys() == clips.keys() and studies_after.keys() == studies.keys()
    shares = [name for name in clips[ids[0]] if name.startswith("prob_")]
    for clip_id, line in after.items():
        if clip_id not in bad:
            assert line == clips[clip_id]
            continue
        assert line["problem"].startswith("open: missing: ")
        assert [line[name] for name in ("predicted", *shares)] == [None] * (1 + len(shares))
    for study, line in studies_after.items():
        own = {i for i in ids if study_of[i] == study}
        if not own & bad:
            assert line == studies[study]
        assert (line["predicted"] is None) == (own <= bad)
        assert (line["problem"] is None) == (not own <= bad)


def test_where_nothing_can_be_read_every_line_says_so(
    bench: Bench, evaluated: Evaluated, by_two_views: Evaluated, tmp_path: Path
) -> None:
    table = table_of(bench)
    gone = lost(table, set(table["clip_id"].to_pylist()))
    for probe in (
        evaluated[0] / "probes" / "ef" / PRETRAINED,
        evaluated[0] / "probes" / "view" / PRETRAINED,
        by_two_views[0] / "probes" / "two views" / f"{PRETRAINED}, linear",
        by_two_views[0] / "probes" / "two views" / f"{PRETRAINED}, grid",
    ):
        clips, studies = predicted(probe, gone, tmp_path / probe.parent.name / probe.name)
        assert (len(clips), len(studies)) == (24, 12)
        for line in (*clips.values(), *studies.values()):
            assert line["predicted"] is None and line["problem"].startswith("open: missing")


def test_no_label_and_no_split_is_needed(
    bench: Bench, evaluated: Evaluated, tmp_path: Path
) -> None:
    probe = evaluated[0] / "probes" / "ef" / PRETRAINED
    table = table_of(bench)
    bare = table.drop_columns(["lvef", "split", "view", "doppler", "population"])
    clips, studies = predicted(probe, bare, tmp_path / "bare")
    before = predicted(probe, table, tmp_path / "whole")
    for found, known in zip((clips, studies), before, strict=True):
        assert {i: line["predicted"] for i, line in found.items()} == {
            i: line["predicted"] for i, line in known.items()
        }
        assert {tuple(line["views"]) for line in found.values()} == {()}


def test_the_interval_is_that_of_what_was_judged(
    bench: Bench, evaluated: Evaluated, tmp_path: Path
) -> None:
    probe = Path(shutil.copytree(evaluated[0] / "probes" / "ef" / PRETRAINED, tmp_path / "probe"))
    card = json.loads((probe / "card.json").read_text())
    (probe / "card.json").write_text(json.dumps({**card, "half_width": 4.5}))
    clips, studies = predicted(probe, table_of(bench), tmp_path)
    for line in studies.values():
        assert (line["low"], line["high"]) == (line["predicted"] - 4.5, line["predicted"] + 4.5)
    assert {(line["low"], line["high"]) for line in clips.values()} == {(None, None)}


def test_tables_of_any_videos_have_the_same_columns(
    bench: Bench, evaluated: Evaluated, tmp_path: Path
) -> None:
    """So that they can be put together, whatever is null in them."""
    probe, table = evaluated[0] / "probes" / "ef" / PRETRAINED, table_of(bench)
    predicted(probe, table, tmp_path / "a")
    predicted(probe, lost(table, set(table["clip_id"].to_pylist())), tmp_path / "b")
    a, b = (pq.read_schema(tmp_path / n / "out" / "predictions.parquet") for n in "ab")
    assert a == b and pa.null() not in a.types


def test_what_cannot_be_predicted_is_said(
    bench: Bench, evaluated: Evaluated, by_two_views: Evaluated, tmp_path: Path
) -> None:
    table, probes = table_of(bench), evaluated[0] / "probes"
    unseen = table.set_column(
        table.column_names.index("view"), "view", pa.array([None] * 24, pa.string())
    )
    by_two = by_two_views[0] / "probes" / "two views" / f"{PRETRAINED}, linear"
    with pytest.raises(ManifestError, match="no clip of the kind that task 'two views' looks at"):
        predicted(by_two, unseen, tmp_path / "a")
    one = table.set_column(table.column_names.index("study_id"), "study_id", pa.array(["1"] * 24))
    with pytest.raises(ManifestError, match="study '1' has clips of several patients"):
        predicted(probes / "ef" / PRETRAINED, one, tmp_path / "b")
    with pytest.raises(CheckpointError, match="not a probe folder"):
        predicted(probes / "ef", table, tmp_path / "c")
    (tmp_path / "d" / "out" / "predictions.parquet").mkdir(parents=True)
    with pytest.raises(StorageError, match="predictions cannot be written"):
        predicted(probes / "ef" / PRETRAINED, table, tmp_path / "d")
