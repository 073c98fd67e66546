"""No leak between pretraining and test, from the run to the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.bench import EF, PRETRAINED, Bench
from support.here import Here
from support.ranks import pretrain_plain

from echojepa.data.manifest.file import read_manifest
from echojepa.errors import ManifestError
from echojepa.evaluate import EvaluateConfig, evaluate
from echojepa.runs.export import export

Tree = dict[str, Any]


def pretrained(tree: Tree, split: str | None, tmp_path: Path, name: str = "run") -> Path:
    """An encoder, exported by a run on one split."""
    tree["data"]["where"] = {"split": split}
    tree["run_dir"] = str(tmp_path / name)
    tree["loop"]["num_steps"] = 2
    pretrain_plain(tree)
    return Path(tree["run_dir"]) / "encoder"


def evaluation(encoder: Path, tree: Tree, out: Path, **changes: Any) -> EvaluateConfig:
    """Of the ejection fraction."""
    bench = Bench(encoder, Path(tree["data"]["manifest"]))
    return bench.config(out, tasks=(EF,), **changes)


def test_an_encoder_that_has_seen_test_patients_is_not_evaluated(
    tree: Tree, tmp_path: Path
) -> None:
    """Before anything is encoded; the run's own export and one made later alike."""
    encoder = pretrained(tree, None, tmp_path)
    again = export(Path(tree["run_dir"]), tmp_path / "again", "safetensors")
    nobody = Here()
    for folder in (encoder, again):
        with pytest.raises(ManifestError, match="3 of 3 test patients were in the encoder's pre"):
            evaluate(evaluation(folder, tree, tmp_path / "out"), nobody)


def test_or_it_is_said_in_every_result(tree: Tree, tmp_path: Path) -> None:
    encoder = pretrained(tree, None, tmp_path)
    config = evaluation(encoder, tree, tmp_path / "out", overlap="mark")
    evaluate(config, Here())
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["encoders"][PRETRAINED]["pretraining_patients"] == {
        "known": True,
        "num_overlapping": 3,
    }
    assert (
        "seen in pretraining <code>pretrained: 3;" in (tmp_path / "out" / "report.html").read_text()
    )


def test_an_encoder_of_the_training_patients_is_evaluated(tree: Tree, tmp_path: Path) -> None:
    encoder = pretrained(tree, "train", tmp_path)
    config = evaluation(encoder, tree, tmp_path / "out")
    here = Here()
    for reads in (1, 2):
        evaluate(config, here)
        found = json.loads((tmp_path / "out" / "results.json").read_text())
        assert found["encoders"][PRETRAINED]["pretraining_patients"] == {
            "known": True,
            "num_overlapping": 0,
        }
        assert found["num_test_reads"] == reads
    assert "test split read <code>2 time(s)</code>" in (tmp_path / "out/report.html").read_text()
    ledger = (tmp_path / "out" / "ledger.jsonl").read_text().splitlines()
    assert len({json.loads(line)["config"] for line in ledger}) == 1


def test_what_the_first_run_had_seen_is_not_forgotten(tree: Tree, tmp_path: Path) -> None:
    """Pretrained on test, then on train from those weights."""
    first = pretrained(tree, "test", tmp_path, "first")
    tree["init_from"] = str(first)
    encoder = pretrained(tree, "train", tmp_path, "second")
    with pytest.raises(ManifestError, match="3 of 3 test patients"):
        evaluate(evaluation(encoder, tree, tmp_path / "out"), Here())


def test_an_encoder_of_unknown_origin_is_told_as_such(bench: Bench, tmp_path: Path) -> None:
    assert len(read_manifest(bench.manifest)) == 24
    evaluate(bench.config(tmp_path, tasks=(EF,)), bench.here)
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["encoders"][PRETRAINED]["pretraining_patients"] == {
        "known": False,
        "num_overlapping": 0,
    }
    assert "none known of; the list is not complete" in (tmp_path / "report.html").read_text()
