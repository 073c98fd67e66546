"""A run grows with its cluster: the same samples, the same losses, every index once."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ranks import losses, pretrain_plain

from echojepa.train.run_audit import audit_run
from echojepa.train.run_folder import RunFolder

pytestmark = pytest.mark.integration


def test_a_second_node_joins(tiny_tree: dict[str, Any], tmp_path: Path) -> None:
    tiny_tree["loop"] |= {"num_steps": 60, "log_every_steps": 1, "checkpoint_every_steps": 60}
    tiny_tree["data"]["segment_steps"] = 20
    plain = copy.deepcopy(tiny_tree)
    plain["run_dir"] = str(tmp_path / "plain")
    tiny_tree["cluster"] = {"num_workers": 1, "max_workers": 2, "resize_interval_seconds": 1.0}
    config = tmp_path / "elastic.yaml"
    config.write_text(yaml.safe_dump(tiny_tree))
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    script = Path(__file__).parent / "growing_cluster.py"
    done = subprocess.run(
        [sys.executable, str(script), str(config), "8"],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    folder = RunFolder(tiny_tree["run_dir"])
    assert [a["world_size"] for a in folder.attempts()] == [1, 2]
    report = audit_run(folder)
    assert not report.findings
    assert report.num_samples == 60 * 8
    assert folder.attempts()[1]["start_step"] % 60, "it saved because it was asked to"
    assert report.num_redone_steps == 0
    difference = np.abs(np.array(losses(tiny_tree)) - np.array(pretrain_plain(plain)))
    assert difference.max() < 1e-4
