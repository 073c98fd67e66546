"""A run on a mixture of data sets, its resume, and its audit per data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.ranks import losses, pretrain_plain
from typer.testing import CliRunner

from echojepa.cli.main import app
from echojepa.data.manifest.file import read_manifest, with_absolute_uris
from echojepa.errors import ConfigError
from echojepa.runs.audit import audit_run
from echojepa.runs.folder import RunFolder

Tree = dict[str, Any]


@pytest.fixture
def mixed(tiny_tree: Tree, phantom_manifest: Path, tmp_path: Path) -> Tree:
    """24 clips: 18 of site "far", one of them unreadable, and 6 of site "near"."""
    table = with_absolute_uris(read_manifest(phantom_manifest), phantom_manifest.parent)
    uris = table["uri"].to_pylist()
    uris[0] = str(tmp_path / "lost.mp4")
    table = table.set_column(table.column_names.index("uri"), "uri", pa.array(uris))
    sites = pa.array(["far"] * 18 + ["near"] * 6)
    table = table.append_column("site", sites)
    pq.write_table(table, tmp_path / "manifest.parquet")
    tiny_tree["data"] |= {
        "manifest": str(tmp_path / "manifest.parquet"),
        "mixture": {"by": "site", "shares": {"near": 3, "far": 1}},
    }
    tiny_tree["loop"] |= {"num_steps": 12, "checkpoint_every_steps": 5, "log_every_steps": 1}
    return tiny_tree


@pytest.mark.integration
def test_a_mixture_is_resumed_and_audited_per_data_set(mixed: Tree, tmp_path: Path) -> None:
    whole = pretrain_plain({**mixed, "run_dir": str(tmp_path / "whole")})
    mixed["loop"]["stop_after_step"] = 7
    pretrain_plain(mixed)
    del mixed["loop"]["stop_after_step"]
    assert pretrain_plain(mixed) == whole == losses(mixed)

    report = audit_run(RunFolder(mixed["run_dir"]))
    assert not report.findings
    far, near = report.data_sets["far"], report.data_sets["near"]
    assert (far.num_samples, near.num_samples) == (24, 72)
    assert (far.num_clips, near.num_clips) == (18, 6)
    assert 1 <= far.num_unread == report.num_unread <= 2, "once per epoch of its data set"
    assert near.num_unread == far.num_dropped == near.num_dropped == 0
    said = CliRunner().invoke(app, ["audit", mixed["run_dir"]])
    assert said.exit_code == 0
    near_row = next(line for line in said.stdout.splitlines() if "near" in line)
    assert "72" in near_row and "12.00" in near_row


def test_other_shares_are_another_run(mixed: Tree) -> None:
    mixed["loop"]["stop_after_step"] = 5
    pretrain_plain(mixed)
    mixed["data"]["mixture"]["shares"]["near"] = 1
    with pytest.raises(ConfigError, match=r"data\.mixture"):
        pretrain_plain(mixed)
