"""What is refused before any worker starts, on a real cluster."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from echojepa.config import validate
from echojepa.errors import BadDataError, ClusterError
from echojepa.launch.pretrain import PretrainJob, launch
from echojepa.runs.folder import RunFolder

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]
Tree = dict[str, Any]


def test_more_workers_than_the_cluster_has_is_said_within_a_minute(tiny_tree: Tree) -> None:
    tiny_tree["cluster"] = {"num_workers": 9, "wait_seconds": 3.0}
    began = time.monotonic()
    with pytest.raises(ClusterError, match=r"9 workers of 1 train_worker.*room for 4.*num_workers"):
        launch(validate(tiny_tree, PretrainJob, "test"), show_progress=False)
    assert time.monotonic() - began < 60


def test_clips_that_nobody_can_read_are_found_before_a_worker_starts(tiny_tree: Tree) -> None:
    table = pq.read_table(tiny_tree["data"]["manifest"])
    broken = Path(tiny_tree["run_dir"]).parent / "broken.parquet"
    uris = [f"gone/{i}.mp4" for i in range(len(table))]
    pq.write_table(table.set_column(table.column_names.index("uri"), "uri", [uris]), broken)
    tiny_tree["data"]["manifest"] = str(broken)
    with pytest.raises(BadDataError, match="none of the first 4 clips can be decoded: .*missing"):
        launch(validate(tiny_tree, PretrainJob, "test"), show_progress=False)
    assert not RunFolder(tiny_tree["run_dir"]).attempts()
