"""No leak: from pretraining, from the test split, from a bad video; from the run to the report."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.bench import EF, PRETRAINED, VIEW, Bench, changed_manifest
from support.here import Here
from support.paths import contents
from support.ranks import pretrain_plain

from echojepa.data.manifest.file import read_manifest, with_absolute_uris, write_manifest
from echojepa.errors import IncompleteError, ManifestError
from echojepa.evaluate import EvaluateConfig, evaluate
from echojepa.probes.extraction import Columns, Extractor, Loader
from echojepa.probes.fitting import ProbeResult
from echojepa.probes.grid.config import GridConfig
from echojepa.probes.linear import LinearConfig
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


def test_nor_is_what_the_teacher_had_seen(tree: Tree, tmp_path: Path) -> None:
    """Pretrained on train, of the features of an encoder that was pretrained on test."""
    teacher = pretrained(tree, "test", tmp_path, "teacher")
    tree["objective"] |= {"kind": "frozen_target", "target": str(teacher)}
    encoder = pretrained(tree, "train", tmp_path, "student")
    with pytest.raises(ManifestError, match="3 of 3 test patients"):
        evaluate(evaluation(encoder, tree, tmp_path / "out"), Here())


def test_nor_is_a_transfer_to_patients_of_its_pretraining(tree: Tree, tmp_path: Path) -> None:
    """The other manifest tests on those whom the encoder has learnt from."""
    encoder = pretrained(tree, "val", tmp_path)
    bench = Bench(encoder, Path(tree["data"]["manifest"]))
    exchanged = {"train": "train", "test": "val", "val": "test"}
    splits = [exchanged[s] for s in read_manifest(bench.manifest)["split"].to_pylist()]
    other = changed_manifest(bench, tmp_path / "other", "split", splits)
    here = Here()
    config = bench.config(
        tmp_path / "out", tasks=(EF,), twin_seed=None, transfers={"swapped": other}
    )
    with pytest.raises(IncompleteError, match="transfer swapped: 3 of 3 test patients were in the"):
        evaluate(config, here)
    assert here.num_blocks == 1  # of our own clips


def test_an_encoder_of_unknown_origin_is_told_as_such(bench: Bench, tmp_path: Path) -> None:
    assert len(read_manifest(bench.manifest)) == 24
    evaluate(bench.config(tmp_path, tasks=(EF,)), bench.here)
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["encoders"][PRETRAINED]["pretraining_patients"] == {
        "known": False,
        "num_overlapping": 0,
    }
    assert "none known of; the list is not complete" in (tmp_path / "report.html").read_text()


PROBES = {
    "linear": LinearConfig(),
    "grid": GridConfig(
        head="linear",
        num_heads=4,
        lr=(1e-1, 1e-3),
        weight_decay=(0.1,),
        epochs=4,
        warmup_epochs=(1,),
    ),
}
EF_OF_CLIPS = EF.model_copy(update={"level": "clip"})


@dataclass
class Moved(Here):
    """Gives some clips features that are far from what they are."""

    moved: frozenset[str] = frozenset()

    def extract(
        self, blocks: Sequence[pa.Table], load: Loader, build: Callable[[], Extractor]
    ) -> Iterator[Columns]:
        for block in super().extract(blocks, load, build):
            name = f"pooled:{PRETRAINED}"
            far = [1e3 if clip_id in self.moved else 1.0 for clip_id in block["clip_id"]]
            yield {**block, name: block[name] * np.array(far, np.float32)[:, None, None]}


def judged(
    bench: Bench, out: Path, here: Here, manifest: str | None = None
) -> tuple[dict[str, bytes], list[ProbeResult]]:
    """The files of all fitted probes, and what they are worth."""
    config = bench.config(
        out,
        tasks=(EF_OF_CLIPS, VIEW),
        probes=PROBES,
        twin_seed=None,
        manifest=manifest or str(bench.manifest),
    )
    results = evaluate(config, here)
    return contents(out / "probes"), results


Judged = tuple[dict[str, bytes], list[ProbeResult]]


@pytest.fixture(scope="module")
def fair(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """Probes on the phantom as it is."""
    found = judged(bench, tmp_path_factory.mktemp("fair"), bench.here)
    assert len(found[0]) == 2 * (2 + 3)
    return found


def outputs(results: list[ProbeResult]) -> dict[tuple[str, str, str], Any]:
    """Every single prediction."""
    return {
        (r.task.name, r.features, unit): output.tolist()
        for r in results
        for unit, output in zip(r.predictions.ids.tolist(), r.predictions.output, strict=True)
    }


def clips_of_test(bench: Bench) -> list[str]:
    """Clips of the test split."""
    rows = read_manifest(bench.manifest).to_pylist()
    return [row["clip_id"] for row in rows if row["split"] == "test"]


def test_labels_of_the_test_split_choose_no_head(
    bench: Bench, fair: Judged, tmp_path: Path
) -> None:
    rows = read_manifest(bench.manifest).to_pylist()
    manifest = str(bench.manifest)
    for column in ("lvef", "view"):
        values = [row[column] for row in rows]
        places = [i for i, row in enumerate(rows) if row["split"] == "test"]
        for place, value in zip(places, [values[i] for i in reversed(places)], strict=True):
            values[place] = value
        other = Bench(bench.encoder, Path(manifest))
        manifest = changed_manifest(other, tmp_path / column, column, values)
    probes, results = judged(bench, tmp_path / "out", bench.here, manifest)
    assert probes == fair[0]
    assert outputs(results) == outputs(fair[1])
    assert [r.test for r in results] != [r.test for r in fair[1]]


def test_features_of_the_test_split_touch_no_scaler(
    bench: Bench, fair: Judged, tmp_path: Path
) -> None:
    here = Moved(known=bench.here.known, moved=frozenset(clips_of_test(bench)))
    probes, results = judged(bench, tmp_path, here)
    assert probes == fair[0]
    assert outputs(results) != outputs(fair[1])


def test_the_order_of_the_rows_touches_nothing(bench: Bench, fair: Judged, tmp_path: Path) -> None:
    table = with_absolute_uris(read_manifest(bench.manifest), bench.manifest.parent)
    order = np.random.default_rng(2).permutation(len(table))
    manifest = write_manifest(table.take(order), tmp_path / "manifest.parquet")
    probes, results = judged(bench, tmp_path / "out", bench.here, str(manifest))
    assert probes == fair[0]
    assert outputs(results) == outputs(fair[1])


def test_a_video_that_fails_changes_no_other_prediction(
    bench: Bench, fair: Judged, tmp_path: Path
) -> None:
    bad = clips_of_test(bench)[2]
    probes, results = judged(bench, tmp_path, bench.here.without({bad}))
    assert probes == fair[0]
    expected = {key: said for key, said in outputs(fair[1]).items() if key[2] != bad}
    assert outputs(results) == expected
    assert len(expected) == 2 * 3 * 5


def test_a_patient_in_two_splits_is_refused_before_anything_is_read(
    bench: Bench, tmp_path: Path
) -> None:
    table = with_absolute_uris(read_manifest(bench.manifest), bench.manifest.parent)
    splits = table["split"].to_pylist()
    splits[splits.index("test")] = "train"
    index = table.column_names.index("split")
    pq.write_table(table.set_column(index, "split", pa.array(splits)), tmp_path / "leak.parquet")
    here = Here()
    with pytest.raises(ManifestError, match=r"is in two splits \(test and train\); 1 such"):
        evaluate(bench.config(tmp_path / "out", manifest=str(tmp_path / "leak.parquet")), here)
    assert here.num_blocks == 0


def test_every_study_is_judged_once_and_by_its_own_label(bench: Bench, tmp_path: Path) -> None:
    """A label of 0.4 stays one."""
    rows = read_manifest(bench.manifest).to_pylist()
    fractions = [row["lvef"] / 100 for row in rows]
    assert 0 < min(fractions) < max(fractions) < 1
    manifest = changed_manifest(bench, tmp_path, "lvef", fractions)
    results = evaluate(bench.config(tmp_path / "out", tasks=(EF,), manifest=manifest), bench.here)
    truth = {r["study_id"]: f for r, f in zip(rows, fractions, strict=True) if r["split"] == "test"}
    assert len(truth) == 3
    for result in results:
        said = result.predictions
        assert dict(zip(said.ids.tolist(), said.truth.tolist(), strict=True)) == truth
    lines = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    assert len(lines) == len(results) * len(truth)
    assert all(float(line["truth"]) == truth[line["id"]] for line in lines)
