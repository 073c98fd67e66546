"""What a cluster's user does: submit the job scripts to a running cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.paths import ROOT

from echojepa.runs.audit import audit_run
from echojepa.runs.folder import RunFolder

pytestmark = pytest.mark.integration


def submit(*command: str) -> subprocess.CompletedProcess[str]:
    ray_command = str(Path(sys.executable).parent / "ray")
    return subprocess.run(
        [ray_command, "job", "submit", "--working-dir", str(ROOT / "ray_jobs"), "--", *command],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.fixture
def config_file(tiny_tree: dict[str, Any], tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(tiny_tree))
    return file


def test_pretraining_is_submitted_to_a_cluster(ray_cluster: str, config_file: Path) -> None:
    done = submit(sys.executable, "pretrain.py", str(config_file), "loop.num_steps=6")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "step 6/6" in done.stdout + done.stderr
    run_dir = yaml.safe_load(config_file.read_text())["run_dir"]
    assert audit_run(RunFolder(run_dir)).num_samples == 6 * 8


def test_bad_input_fails_the_job_with_one_line(ray_cluster: str, config_file: Path) -> None:
    done = submit(sys.executable, "pretrain.py", str(config_file), "loop.num_stepz=6")
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "error: unknown key 'loop.num_stepz'" in said
    assert "Did you mean 'loop.num_steps'?" in said
    assert "Traceback" not in said
