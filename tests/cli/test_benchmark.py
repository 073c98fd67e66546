"""`echojepa benchmark` on the command line: the quick sibling, and a plan that writes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.paths import ROOT
from typer.testing import CliRunner

from echojepa.cli.main import app
from echojepa.errors import ConfigError


def test_quick_takes_the_sibling_and_a_plan_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    out = tmp_path / "out"
    said = [
        CliRunner()
        .invoke(
            app, ["benchmark", "configs/benchmark/phantom.yaml", *words, "--plan", f"out={out}"]
        )
        .stdout
        for words in ([], ["--quick"])
    ]
    assert " 450 " in said[0] and " 450 " not in said[1]
    assert " 12 " in said[1]
    assert all("training steps of all arms and seeds: 0." in text for text in said)
    assert not out.exists()


def test_a_missing_sibling_is_said(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("{}")
    found = CliRunner().invoke(app, ["benchmark", str(file), "--quick"])
    assert isinstance(found.exception, ConfigError)
    assert "mine_quick.yaml" in str(found.exception)
