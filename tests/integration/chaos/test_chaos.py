"""Faults for real, one per run of 40 steps on two workers: nothing lost, nothing counted twice.

pytest -m soak tests/integration/chaos -s     prints the table of docs/reliability.md

One of them runs in CI.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ranks import pretrain_plain
from ray.util.state import list_actors
from runs import COLUMNS, NUM_STEPS, Outcome, Run

pytestmark = pytest.mark.timeout(600)
Tree = dict[str, Any]
soak, integration = pytest.mark.soak, pytest.mark.integration


@pytest.fixture(scope="module")
def table() -> Iterator[list[Outcome]]:
    """Collects the rows and prints them."""
    rows: list[Outcome] = []
    yield rows
    print("\n" + COLUMNS)
    for row in rows:
        print(row.row())


@pytest.fixture
def tree(tiny_tree: Tree) -> Tree:
    """40 steps on two workers, a checkpoint every ten; ten seconds of silence are a hang."""
    tiny_tree["data"]["segment_steps"] = 12
    tiny_tree["loop"] |= {
        "num_steps": NUM_STEPS,
        "log_every_steps": 1,
        "checkpoint_every_steps": 10,
        "image_every_steps": NUM_STEPS,
    }
    tiny_tree["cluster"] = {"num_workers": 2, "hang_seconds": 10.0}
    return tiny_tree


@pytest.fixture
def run(tree: Tree, tmp_path: Path, ray_cluster: str) -> Run:
    return Run(tree, tmp_path, ray_cluster)


@pytest.fixture(scope="module")
def _undisturbed() -> dict[str, list[float]]:
    return {}


@pytest.fixture
def undisturbed(tree: Tree, tmp_path: Path, _undisturbed: dict[str, list[float]]) -> list[float]:
    """Losses of the same run in one plain process."""
    if not _undisturbed:
        plain = {k: v for k, v in tree.items() if k != "cluster"}
        _undisturbed["losses"] = pretrain_plain({**plain, "run_dir": str(tmp_path / "plain")})
    return _undisturbed["losses"]


def pids(actor_class: str) -> list[int]:
    """Processes of living actors."""
    filters = [("class_name", "=", actor_class), ("state", "=", "ALIVE")]
    return [actor.pid for actor in list_actors(filters=filters)]


def judged(run: Run, fault: str, undisturbed: list[float], table: list[Outcome]) -> Outcome:
    outcome = run.outcome(fault, undisturbed)
    table.append(outcome)
    assert outcome.recovered and outcome.lost == outcome.doubled == 0, outcome
    assert outcome.difference < 1e-5
    assert outcome.redone <= 10
    return outcome


@pytest.mark.parametrize(
    ("fault", "actor_class", "signal_number"),
    [
        pytest.param("worker killed", "RayTrainWorker", signal.SIGKILL, marks=soak),
        pytest.param("worker stands still", "RayTrainWorker", signal.SIGSTOP, marks=integration),
        pytest.param("controller killed", "TrainController", signal.SIGKILL, marks=soak),
    ],
)
def test_a_process_is_struck(
    run: Run,
    fault: str,
    actor_class: str,
    signal_number: signal.Signals,
    undisturbed: list[float],
    table: list[Outcome],
) -> None:
    driver = run.start()
    run.wait_for_step(15)
    run.strikes()
    os.kill(pids(actor_class)[-1], signal_number)
    _, said = driver.communicate()
    assert driver.returncode == 0, said
    judged(run, fault, undisturbed, table)


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        pytest.param("a rank raises", "raise", marks=soak),
        pytest.param("a rank hangs", "hang", marks=soak),
        pytest.param("killed for its memory", "memory", marks=soak),
        pytest.param("killed in the middle of a save", "saving", marks=soak),
    ],
)
def test_a_worker_fails(
    run: Run, fault: str, name: str, undisturbed: list[float], table: list[Outcome]
) -> None:
    driver = run.start(name)
    _, said = driver.communicate()
    assert driver.returncode == 0, said
    judged(run, fault, undisturbed, table)


@soak
def test_the_driver_is_killed(run: Run, undisturbed: list[float], table: list[Outcome]) -> None:
    """The same command finds its run and goes on."""
    driver = run.start()
    run.wait_for_step(15)
    run.strikes()
    driver.kill()
    driver.communicate()
    driver = run.start()
    _, said = driver.communicate()
    assert driver.returncode == 0, said
    judged(run, "driver killed, command repeated", undisturbed, table)


@soak
def test_the_disk_is_full(run: Run, undisturbed: list[float], table: list[Outcome]) -> None:
    """The run ends and says what to do; afterwards the same command goes on."""
    driver = run.start("disk")
    _, said = driver.communicate()
    assert driver.returncode != 0
    assert "No space left on device" in said and "Free space" in said
    driver = run.start("disk")
    _, said = driver.communicate()
    assert driver.returncode == 0, said
    judged(run, "disk full while saving, command repeated", undisturbed, table)


@soak
def test_a_decoder_dies_of_a_segmentation_fault(
    run: Run, undisturbed: list[float], table: list[Outcome]
) -> None:
    """Ray Data starts another; the workers notice nothing, so there is one attempt."""
    driver = run.start()
    run.wait_for_step(15)
    run.strikes()
    os.kill(pids("MapWorker(MapBatches(Decoder))")[-1], signal.SIGSEGV)
    _, said = driver.communicate()
    assert driver.returncode == 0, said
    outcome = run.outcome("decoder: segmentation fault", undisturbed)
    table.append(Outcome(**{**vars(outcome), "recovered": True}))
    assert outcome.lost == outcome.doubled == outcome.redone == 0
    assert outcome.difference < 1e-5
