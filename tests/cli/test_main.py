"""The console command: what it says, what it returns, and that help costs nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.command import echojepa
from support.ranks import pretrain_plain
from typer.testing import CliRunner, Result

from echojepa.cli.main import app
from echojepa.errors import AuditError, ConfigError
from echojepa.models.weights import load_encoder, read_companions

COMMANDS = (
    "demo",
    "phantom",
    "phantom-gallery",
    "manifest",
    "pretrain",
    "sweep",
    "benchmark",
    "evaluate",
    "export",
    "import-weights",
    "audit",
    "drain-node",
    "watch-termination",
)


def test_help_names_every_command() -> None:
    done = echojepa("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert f" {command} " in done.stdout


def test_help_does_not_import_what_is_heavy() -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from echojepa.cli.main import app\n"
        "assert CliRunner().invoke(app, ['pretrain', '--help']).exit_code == 0\n"
        "print([m for m in ('torch', 'ray', 'deepspeed', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["audit", "nowhere"], "not a run folder"),
        pytest.param(
            ["demo", "out", "pretrain.loop.num_stepz=3"],
            "Did you mean 'loop.num_steps'",
            marks=pytest.mark.integration,
        ),
    ],
)
def test_a_users_mistake_is_one_line_and_code_2(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    given = [str(tmp_path / a) if a in ("nowhere", "out") else a for a in arguments]
    done = echojepa(*given)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr


@pytest.fixture
def run_dir(tiny_tree: dict[str, Any]) -> Path:
    """A finished run."""
    pretrain_plain(tiny_tree)
    return Path(tiny_tree["run_dir"])


def inside(*arguments: object) -> Result:
    """A command inside this process."""
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_audit_and_export_of_a_run(run_dir: Path, tmp_path: Path) -> None:
    audited = inside("audit", run_dir)
    assert audited.exit_code == 0, audited.output
    assert "8 steps, 64 samples trained on" in audited.stdout
    assert "clean: every sample exactly once" in audited.stdout
    exported = inside("export", run_dir, tmp_path / "encoder")
    assert exported.exit_code == 0, exported.output
    ours, theirs = load_encoder(tmp_path / "encoder"), load_encoder(run_dir / "encoder")
    assert all(a.equal(b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_out_to_other_software_and_back_nothing_changes(run_dir: Path, tmp_path: Path) -> None:
    told = ["num_heads=4", "predictor_heads=2", "size=48"]
    for format, name in (("huggingface", "hf"), ("vjepa2", "vjepa2.pt")):
        exported = inside("export", run_dir, tmp_path / name, "--format", format)
        assert exported.exit_code == 0, exported.output
        back = inside("import-weights", tmp_path / name, tmp_path / f"{name}_back", *told)
        assert back.exit_code == 0, back.output
        assert "tensors taken over" in back.output
        ours, theirs = load_encoder(run_dir / "encoder"), load_encoder(tmp_path / f"{name}_back")
        assert ours.config == theirs.config
        assert all(a.equal(b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert read_companions(tmp_path / "vjepa2.pt_back") is not None


def test_an_audit_that_finds_something_fails(run_dir: Path) -> None:
    record = next((run_dir / "samples").rglob("*.jsonl"))
    lines = record.read_text().splitlines(keepends=True)
    record.write_text("".join(lines[:3] + lines[4:]))
    done = inside("audit", run_dir)
    assert isinstance(done.exception, AuditError)
    assert "clean" not in done.stdout


def test_a_setting_of_the_demo_names_its_config(tmp_path: Path) -> None:
    done = inside("demo", tmp_path, "loop.num_steps=3")
    assert isinstance(done.exception, ConfigError)
    assert "none of the demo's configs" in str(done.exception)


@pytest.mark.integration
def test_phantoms_by_command(tmp_path: Path) -> None:
    made = echojepa("phantom", tmp_path / "p", "--num-studies", 3, "size=48", "num_frames=12")
    assert made.returncode == 0, made.stderr
    manifest = Path(made.stdout.strip())
    checked = echojepa("manifest", "validate", manifest, "--decode")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_resolved_config_of_a_run_is_a_config(run_dir: Path) -> None:
    tree = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert tree["loop"]["num_steps"] == 8
