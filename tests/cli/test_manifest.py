"""`echojepa manifest ...` on real files: what it prints, what it writes, how it refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.clips import change
from support.public_sets import CHILD, write_pediatric
from typer.testing import CliRunner, Result

from echojepa.cli.main import app
from echojepa.data.manifest.file import read_manifest
from echojepa.errors import ConfigError, ManifestError


def run(*arguments: str | Path) -> Result:
    """`echojepa manifest` inside this process; `UserError`s stay exceptions here."""
    return CliRunner().invoke(app, ["manifest", *map(str, arguments)])


def refusal(*arguments: str | Path) -> str:
    """The error of a command that must fail."""
    result = run(*arguments)
    assert result.exit_code != 0
    assert isinstance(result.exception, ManifestError)
    return str(result.exception)


# ------------------------------------------------------------------------------------ exit codes


def process(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command as a user starts it."""
    command = [sys.executable, "-m", "echojepa.cli.main", "manifest", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_exit_codes_of_the_process(copied: Path, tmp_path: Path) -> None:
    good = process("validate", copied)
    assert (good.returncode, good.stderr) == (0, "")
    assert "24 clips, valid" in good.stdout
    missing = tmp_path / "none.parquet"
    bad = process("validate", missing)
    assert (bad.returncode, bad.stdout) == (2, "")
    (line,) = bad.stderr.splitlines()
    assert line.startswith(f"error: no such manifest [{missing}]. Check the path")


# -------------------------------------------------------------------------------------- validate


def test_validate(phantom_manifest: Path) -> None:
    result = run("validate", phantom_manifest)
    assert result.exit_code == 0
    assert "24 clips, valid" in result.output


def test_validate_names_what_is_wrong(copied: Path) -> None:
    rows = read_manifest(copied).to_pylist()
    patient = rows[0]["patient_id"]
    mates = [i for i, row in enumerate(rows) if row["patient_id"] == patient]
    assert len(mates) == 2
    other = "test" if rows[0]["split"] != "test" else "val"
    change(copied, "split", mates[1], other)
    message = refusal("validate", copied)
    assert f"patient {patient!r} is in two splits" in message
    assert other in message
    assert "manifest split" in message


def test_what_judges_files_needs_decode(copied: Path) -> None:
    for options in (["read.decoder=pyav"], ["--fail-on-bad"], ["--out", copied.parent / "o"]):
        result = run("validate", copied, *options)
        assert isinstance(result.exception, ConfigError)
        assert "--decode" in str(result.exception)
    misspelt = run("validate", copied, "--decode", "read.decoders=pyav")
    assert "read.decoder" in str(misspelt.exception)


# ----------------------------------------------------------------------------------------- split


def test_split(copied: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "split.parquet"
    result = run("split", copied, target, "--fractions", "0.5,0.25,0.25", "--seed", "3")
    assert result.exit_code == 0
    table = read_manifest(target)
    assert len(table) == 24
    assert set(table["split"].to_pylist()) == {"train", "val", "test"}
    again = tmp_path / "again.parquet"
    run("split", target, again, "--fractions", "0.5,0.25,0.25", "--seed", "3")
    assert read_manifest(again).equals(table)
    run("split", target, again, "--fractions", "0.5,0.25,0.25", "--seed", "4")
    assert not read_manifest(again)["split"].equals(table["split"])
    run("split", target, again, "--fractions", "0,1,0")
    assert set(read_manifest(again)["split"].to_pylist()) == {"val"}


def test_split_repairs_splits(copied: Path) -> None:
    change(copied, "split", 0, "test")
    change(copied, "split", 1, "train")
    change(copied, "split", 2, "nonsense")
    assert run("validate", copied).exit_code != 0
    assert run("split", copied, copied).exit_code == 0
    assert run("validate", copied).exit_code == 0


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ("0.8;0.1;0.1", "--fractions '0.8;0.1;0.1' is not three numbers"),
        ("0.8,0.2", "are not three shares that sum to 1"),
        ("0.8,0.2,0.2", "are not three shares that sum to 1"),
        ("nan,0.5,0.5", "are not three shares that sum to 1"),
        ("", "is not three numbers"),
    ],
)
def test_split_refuses_fractions(
    copied: Path, tmp_path: Path, fractions: str, message: str
) -> None:
    target = tmp_path / "split.parquet"
    text = refusal("split", copied, target, "--fractions", fractions)
    assert message in text
    assert "0.8,0.1,0.1" in text
    assert not target.exists()


# ----------------------------------------------------------------------------------------- stats


def test_stats(phantom_manifest: Path) -> None:
    result = run("stats", phantom_manifest)
    assert result.exit_code == 0
    rows = [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in result.output.splitlines()
        if line.startswith("│")
    ]
    table = {row[0]: row[1:] for row in rows}
    assert table["A4C"] == ["12", "12", "12", "0"]
    assert table["num_frames"] == ["24", "24", "24", "24"]
    assert table["lvef"][0] == "24"
    assert {"train", "val", "test", "PSAX-PM", "none", "native_fps", "heart_rate"} <= set(table)
    read = read_manifest(phantom_manifest)["split"].to_pylist()
    assert int(table["train"][0]) == read.count("train")


def test_stats_of_a_bad_manifest(copied: Path) -> None:
    change(copied, "split", 0, "dev")
    assert "split 'dev' is not one of train, val, test" in refusal("stats", copied)


# ------------------------------------------------------------------------------ public data sets


def test_what_the_help_says_of_public_data_sets() -> None:
    listed = run("--help").output
    assert "From public data sets' own lists" in listed
    for name in ("echonet-dynamic", "echonet-pediatric", "camus", "mimic"):
        assert name in listed
        assert "ROOT" in run(name, "--help").output


def test_a_data_set_with_folds_wants_them_named(tmp_path: Path) -> None:
    root = write_pediatric(tmp_path / "root", {"A4C": [CHILD.format(name="A-S-1.avi", fold=0)]})
    target = tmp_path / "manifest.parquet"
    message = refusal("echonet-pediatric", root, target)
    assert "nothing says which are val and test" in message
    assert "--protocol (cardiobench, echojepa), or --folds such as test=0,val=1" in message
    message = refusal("echonet-pediatric", root, target, "--folds", "test=2,val=2")
    assert "fold 2 is both val and test" in message
    assert not target.exists()


def test_the_wrong_folder_or_list_is_refused_before_a_cluster_starts(tmp_path: Path) -> None:
    root = write_pediatric(tmp_path / "root", {})
    target = tmp_path / "manifest.parquet"
    for command, lacking in (
        ("echonet-dynamic", "EchoNet-Dynamic: it lacks FileList.csv, Videos"),
        ("camus", "CAMUS: it lacks database_nifti, database_split/subgroup_training.txt"),
        ("mimic", "MIMIC-IV-Echo: it lacks echo-record-list.csv, files"),
    ):
        assert f"not the folder of {lacking}" in refusal(command, root, target)
    message = refusal("echonet-dynamic", root / "A4C", target)
    assert "the list lacks ESV, EDV, FrameHeight, FrameWidth, FPS, NumberOfFrames" in message
    assert "it has FileName, EF, Sex, Age, Weight, Height, Split" in message
    misspelt = run("camus", root, target, "read.decoders=pyav")
    assert isinstance(misspelt.exception, ConfigError)


# ------------------------------------------------------------------------------- what is printed


def awkward(manifest: Path, folder: Path) -> Path:
    """The manifest under a long path with brackets."""
    there = folder / ("a_rather_long_name_of_a_folder" * 3) / "run[b]" / "manifest.parquet"
    there.parent.mkdir(parents=True)
    shutil.copy(manifest, there)
    return there


def test_a_printed_path_is_one_line(copied: Path, tmp_path: Path) -> None:
    """So that a script can take it: long paths are not folded, brackets are not markup."""
    path = awkward(copied, tmp_path)
    target = path.with_name("split.parquet")
    result = run("split", path, target)
    assert result.exit_code == 0
    assert result.output.strip() == str(target)


def test_a_printed_message_is_one_line(copied: Path, tmp_path: Path) -> None:
    path = awkward(copied, tmp_path)
    assert run("validate", path).output.strip() == f"{path}: 24 clips, valid"


def test_the_first_import_is_light() -> None:
    """`--help` answers at once: no torch, no Ray, no Arrow."""
    code = (
        "import sys, echojepa.cli.main; "
        "print([m for m in ('torch', 'ray', 'pyarrow', 'av') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
