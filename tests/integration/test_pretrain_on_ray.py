"""Pretraining on a Ray cluster ends with the losses of one undisturbed plain process."""

from __future__ import annotations

import copy
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.actors import pids
from support.ranks import losses, pretrain_plain

from echojepa.config import validate
from echojepa.data.sampling import rows_of
from echojepa.errors import BadDataError, ClusterError
from echojepa.launch.pretrain import PretrainJob
from echojepa.launch.pretrain import launch as launch_pretrain
from echojepa.randomness import Seeds
from echojepa.runs.audit import audit_run
from echojepa.runs.folder import RunFolder, read_lines

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]
Tree = dict[str, Any]


@pytest.fixture
def tree(tiny_tree: Tree) -> Tree:
    """40 steps in segments of 12, two workers on two CPUs, a checkpoint every ten."""
    tiny_tree["data"]["segment_steps"] = 12
    tiny_tree["loop"] |= {
        "num_steps": 40,
        "log_every_steps": 1,
        "checkpoint_every_steps": 10,
        "image_every_steps": 40,
    }
    tiny_tree["cluster"] = {"num_workers": 2}
    return tiny_tree


def launch(tree: Tree) -> dict[str, float]:
    return launch_pretrain(validate(tree, PretrainJob, "test"), show_progress=False)


def plain_losses(tree: Tree) -> list[float]:
    plain = copy.deepcopy(tree)
    plain.pop("cluster")
    plain["run_dir"] = f"{tree['run_dir']}_plain"
    return pretrain_plain(plain)


def when_step(tree: Tree, step: int, action: Callable[[], None]) -> threading.Thread:
    """Run an action as soon as a step is logged."""

    def wait() -> None:
        file = Path(tree["run_dir"]) / "metrics.jsonl"
        while not any(line["step"] >= step for line in read_lines(file)):
            time.sleep(0.05)
        action()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def kill_a_worker() -> None:
    """`kill -9` one living training worker."""
    os.kill(pids("RayTrainWorker")[-1], signal.SIGKILL)


def test_a_killed_worker_changes_nothing(tree: Tree) -> None:
    """Also: as many workers as CPUs, and decoding does not starve."""
    thread = when_step(tree, 15, kill_a_worker)
    launch(tree)
    thread.join()
    folder = RunFolder(tree["run_dir"])
    assert [a["start_step"] for a in folder.attempts()] == [0, 10]
    report = audit_run(folder)
    assert not report.findings
    assert report.num_samples == 40 * 8
    assert report.num_redone_steps >= 4
    difference = np.abs(np.array(losses(tree)) - np.array(plain_losses(tree)))
    assert difference.max() < 1e-5
    assert (folder.encoder / "model.safetensors").is_file()


def test_the_same_command_resumes_a_stopped_run(tree: Tree) -> None:
    tree["loop"] |= {"num_steps": 20, "stop_after_step": 10}
    launch(tree)
    tree["loop"]["stop_after_step"] = None
    tree["cluster"] = {"num_workers": 3}
    launch(tree)
    folder = RunFolder(tree["run_dir"])
    assert [(a["start_step"], a["world_size"]) for a in folder.attempts()] == [(0, 2), (10, 3)]
    assert audit_run(folder).num_samples == 20 * 8
    difference = np.abs(np.array(losses(tree)) - np.array(plain_losses(tree)))
    assert difference.max() < 1e-4


def test_more_workers_than_the_cluster_has_is_said_within_a_minute(tree: Tree) -> None:
    tree["cluster"] = {"num_workers": 9, "wait_seconds": 3.0}
    began = time.monotonic()
    with pytest.raises(ClusterError, match=r"9 workers of 1 train_worker.*room for 4.*num_workers"):
        launch(tree)
    assert time.monotonic() - began < 60


def test_clips_that_nobody_can_read_are_found_before_a_worker_starts(tree: Tree) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(tree["data"]["manifest"])
    broken = Path(tree["run_dir"]).parent / "broken.parquet"
    uris = [f"gone/{i}.mp4" for i in range(len(table))]
    pq.write_table(table.set_column(table.column_names.index("uri"), "uri", [uris]), broken)
    tree["data"]["manifest"] = str(broken)
    with pytest.raises(BadDataError, match="none of the first 4 clips can be decoded: .*missing"):
        launch(tree)
    assert not RunFolder(tree["run_dir"]).attempts()


def test_a_users_error_in_the_workers_reaches_the_driver_as_itself(tree: Tree) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(tree["data"]["manifest"])
    broken = Path(tree["run_dir"]).parent / "broken.parquet"
    first = set(rows_of(np.arange(4), len(table), Seeds(tree["seed"])).tolist())
    here = Path(tree["data"]["manifest"]).parent
    uris = [
        str(here / uri) if i in first else f"gone/{i}.mp4"
        for i, uri in enumerate(table["uri"].to_pylist())
    ]
    pq.write_table(table.set_column(table.column_names.index("uri"), "uri", [uris]), broken)
    tree["data"] |= {"manifest": str(broken), "max_bad_fraction": 0.001}
    with pytest.raises(BadDataError, match="could not be read, more than max_bad_fraction"):
        launch(tree)
    run_folder = RunFolder(tree["run_dir"])
    assert len(run_folder.attempts()) == 1, "it is not tried again"
    assert {e["error"] for e in run_folder.events("attempt_failed")} == {"BadDataError"}
