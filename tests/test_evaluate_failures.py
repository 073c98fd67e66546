"""What fails of an evaluation costs nothing else, is told, and ends with exit code 2."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError
from support.bench import EF, PRETRAINED, RANDOM, VIEW, Bench, changed_manifest
from support.here import Here

from echojepa.data.corrupt import CorruptionSuite
from echojepa.data.manifest.file import read_manifest, write_manifest
from echojepa.encoders.ours import OurSource
from echojepa.errors import (
    EXIT_USER,
    ConfigError,
    IncompleteError,
    ManifestError,
    StorageError,
    exit_codes,
)
from echojepa.evaluate import EvaluateConfig, evaluate
from echojepa.probes.extraction import Columns
from echojepa.probes.grid.config import GridConfig
from echojepa.probes.linear import LinearConfig


def results(out: Path) -> dict[str, Any]:
    """What was written, by a reader that takes no number that JSON does not have."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    found: dict[str, Any] = json.loads((out / "results.json").read_text(), parse_constant=refuse)
    return found


def told(config: EvaluateConfig, here: Here) -> dict[str, str]:
    """The failures of an evaluation that is incomplete."""
    with pytest.raises(IncompleteError) as caught:
        evaluate(config, here)
    failed: dict[str, str] = results(Path(config.out))["failed"]
    for what, why in failed.items():
        assert f"{what}: {why}" in str(caught.value)
        assert f"No result of {what}" in (Path(config.out) / "report.html").read_text()
    return failed


def test_an_encoder_that_cannot_be_loaded_does_not_cost_the_others(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = Path(shutil.copytree(bench.encoder, tmp_path / "damaged"))
    (damaged / "model.safetensors").write_bytes(b"nonsense")
    encoders = {
        "damaged": OurSource(path=str(damaged)),
        PRETRAINED: OurSource(path=str(bench.encoder)),
    }
    config = bench.config(tmp_path / "out", encoders=encoders, tasks=(EF,))
    with pytest.raises(SystemExit) as caught, exit_codes():
        evaluate(config, bench.here)
    assert caught.value.code == EXIT_USER
    assert "encoder damaged: model.safetensors cannot be read" in capsys.readouterr().err
    found = results(tmp_path / "out")
    assert list(found["failed"]) == ["encoder damaged"]
    assert str(damaged) in found["failed"]["encoder damaged"]
    names = [line["features"] for line in found["results"]]
    assert names == ["damaged (random weights)", PRETRAINED, RANDOM, "predict mean"]


def test_a_probe_that_cannot_be_fitted_does_not_cost_the_others(
    bench: Bench, tmp_path: Path
) -> None:
    """Of one encoder or all, nor what few labels make of those that can."""
    probes = {"linear": LinearConfig(), "grid": GridConfig(num_heads=7)}
    config = bench.config(tmp_path, tasks=(EF,), probes=probes, twin_seed=None, label_shares=(0.5,))
    failed = told(config, bench.here)
    assert list(failed) == [f"task ef, {PRETRAINED}, grid"]
    assert "7 attention heads do not divide the width" in failed[f"task ef, {PRETRAINED}, grid"]
    found = results(tmp_path)
    names = [line["features"] for line in found["results"]]
    assert names == [f"{PRETRAINED}, linear", "predict mean"]
    assert [p["features"] for p in found["label_efficiency"]] == [f"{PRETRAINED}, linear"]


def test_no_probe_at_all_is_an_error_of_its_own(bench: Bench, tmp_path: Path) -> None:
    config = bench.config(tmp_path, tasks=(EF,), probes={"grid": GridConfig(num_heads=7)})
    with pytest.raises(ConfigError, match="7 attention heads"):
        evaluate(config, bench.here)


class LostAfterwards(Here):
    """Clips can be read for the probes, and never again."""

    def extract(self, *arguments: Any) -> Iterator[Columns]:
        every = {clip_id for block in arguments[0] for clip_id in block["clip_id"].to_pylist()}
        self.unreadable = frozenset(every if self.num_blocks else ())
        yield from super().extract(*arguments)


def test_a_suite_without_readable_clips_does_not_cost_the_rest(
    bench: Bench, tmp_path: Path
) -> None:
    worse = CorruptionSuite(presets=("undergain",), reencode=False)
    nobody = changed_manifest(bench, tmp_path / "others", "split", ["val"] * 24)
    config = bench.config(
        tmp_path / "out",
        tasks=(EF,),
        twin_seed=None,
        robustness=worse,
        transfers={"elsewhere": nobody},
    )
    failed = told(config, LostAfterwards())
    assert list(failed) == ["robustness, task ef", "transfer elsewhere, task ef"]
    for why in failed.values():
        assert "task 'ef' has no readable labelled clip in split 'test'" in why
    found = results(tmp_path / "out")
    assert len(found["results"]) == 2 and not found["robustness"] and not found["transfers"]


def test_a_transfer_tells_of_every_task_that_the_other_manifest_lacks(
    bench: Bench, tmp_path: Path
) -> None:
    """And judges the others; a manifest that does not exist is one more failure."""
    other = read_manifest(bench.manifest).drop_columns(["lvef"])
    uris = [str(bench.manifest.parent / uri) for uri in other["uri"].to_pylist()]
    patients = [f"other {p}" for p in other["patient_id"].to_pylist()]
    folder = tmp_path / "others"
    manifest = write(other, folder, uri=uris, patient_id=patients)
    transfers = {"elsewhere": manifest, "nowhere": str(tmp_path / "typo.parquet")}
    config = bench.config(tmp_path / "out", transfers=transfers, twin_seed=None)
    failed = told(config, bench.here)
    assert list(failed) == ["transfer elsewhere, task ef", "transfer nowhere"]
    assert "task 'ef' needs the column 'lvef'" in failed["transfer elsewhere, task ef"]
    assert "no such manifest" in failed["transfer nowhere"]
    (line,) = results(tmp_path / "out")["transfers"]
    assert (line["target"], line["task"], line["calibration"]) == ("elsewhere", "view", "strict")


def write(table: pa.Table, folder: Path, **columns: list[str]) -> str:
    """A manifest with some columns replaced."""
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    return str(write_manifest(table, folder / "manifest.parquet"))


@pytest.mark.parametrize("blocked", ["probes", "features", "ledger.jsonl"])
def test_a_blocked_part_of_the_output_is_a_storage_error(
    bench: Bench, tmp_path: Path, blocked: str
) -> None:
    path = tmp_path / blocked
    path.mkdir() if blocked == "ledger.jsonl" else path.touch()
    with pytest.raises(StorageError, match="cannot be written"):
        evaluate(bench.config(tmp_path, tasks=(EF,)), bench.here)


def test_a_misspelt_run_is_an_error_before_anything_is_encoded(
    bench: Bench, tmp_path: Path
) -> None:
    here = Here()
    with pytest.raises(StorageError, match="not a run folder"):
        evaluate(bench.config(tmp_path / "out", run_dir=str(tmp_path)), here)
    assert here.num_blocks == 0 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", ["encoders", "probes"])
@pytest.mark.parametrize("name", ["..", "a/b", ""])
def test_names_are_those_of_folders(bench: Bench, tmp_path: Path, part: str, name: str) -> None:
    """`encoders: {..: ...}` would otherwise delete the folder above that of the exports."""
    given: Any = OurSource(path=str(bench.encoder)) if part == "encoders" else LinearConfig()
    with pytest.raises(ValidationError, match=part):
        bench.config(tmp_path, **{part: {name: given}})


def test_two_patients_of_one_study_are_refused(bench: Bench, tmp_path: Path) -> None:
    manifest = changed_manifest(bench, tmp_path, "study_id", ["1", "2"] * 12)
    tasks = (VIEW.model_copy(update={"level": "study", "label": "vendor"}),)
    with pytest.raises(ManifestError, match=r"has (clips of several patients|several values)"):
        evaluate(bench.config(tmp_path / "out", manifest=manifest, tasks=tasks), Here())
