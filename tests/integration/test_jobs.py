"""What a cluster's user does: submit the job scripts."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from support.paths import ROOT
from support.ranks import losses, pretrain_plain

from echojepa.config import validate
from echojepa.data.sampling import rows_of
from echojepa.launch.pretrain import PretrainJob, launch
from echojepa.randomness import Seeds
from echojepa.runs.audit import audit_run
from echojepa.runs.folder import RunFolder

pytestmark = pytest.mark.integration
Tree = dict[str, Any]


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


def written(tree: Tree, folder: Path) -> str:
    """A config as a file."""
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(tree))
    return str(file)


@pytest.fixture
def tree(tiny_tree: Tree) -> Tree:
    """20 steps on two workers, in segments of 12."""
    tiny_tree["data"]["segment_steps"] = 12
    tiny_tree["loop"] |= {"num_steps": 20, "log_every_steps": 1, "image_every_steps": 20}
    tiny_tree["cluster"] = {"num_workers": 2}
    return tiny_tree


def test_a_stopped_run_is_resumed_by_a_submitted_job(
    ray_cluster: str, tree: Tree, tmp_path: Path
) -> None:
    """Stopped on two workers, gone on with three: the losses of one undisturbed plain process."""
    stopped = {**tree, "loop": {**tree["loop"], "stop_after_step": 10}}
    launch(validate(stopped, PretrainJob, "test"), show_progress=False)
    job = written(tree, tmp_path)
    done = submit(sys.executable, "pretrain.py", job, "cluster.num_workers=3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "step 20/20" in done.stdout + done.stderr
    folder = RunFolder(tree["run_dir"])
    assert [(a["start_step"], a["world_size"]) for a in folder.attempts()] == [(0, 2), (10, 3)]
    assert audit_run(folder).num_samples == 20 * 8
    plain = {k: v for k, v in copy.deepcopy(tree).items() if k != "cluster"}
    undisturbed = pretrain_plain({**plain, "run_dir": f"{tree['run_dir']}_plain"})
    assert np.abs(np.array(losses(tree)) - np.array(undisturbed)).max() < 1e-4


def test_a_users_error_in_the_workers_ends_the_job_with_one_line(
    ray_cluster: str, tree: Tree, tmp_path: Path
) -> None:
    """Preflight sees only the first clips; the others are found unreadable in training."""
    manifest = Path(tree["data"]["manifest"])
    table = pq.read_table(manifest)
    first = set(rows_of(np.arange(4), len(table), Seeds(tree["seed"])).tolist())
    uris = [
        str(manifest.parent / uri) if i in first else f"gone/{i}.mp4"
        for i, uri in enumerate(table["uri"].to_pylist())
    ]
    broken = tmp_path / "broken.parquet"
    pq.write_table(table.set_column(table.column_names.index("uri"), "uri", [uris]), broken)
    tree["data"] |= {"manifest": str(broken), "max_bad_fraction": 0.001}
    done = submit(sys.executable, "pretrain.py", written(tree, tmp_path))
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "error: " in said and "could not be read, more than max_bad_fraction" in said
    assert "Traceback" not in said
    run_folder = RunFolder(tree["run_dir"])
    assert len(run_folder.attempts()) == 1, "it is not tried again"
    assert {e["error"] for e in run_folder.events("attempt_failed")} == {"BadDataError"}


def test_a_mistyped_setting_ends_the_script_with_one_line(tree: Tree, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "ray_jobs" / "pretrain.py"), written(tree, tmp_path)]
    done = subprocess.run(
        [*command, "loop.num_stepz=6"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "unknown key 'loop.num_stepz'" in done.stderr
    assert "Did you mean 'loop.num_steps'?" in done.stderr
