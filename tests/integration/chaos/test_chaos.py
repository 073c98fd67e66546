"""Faults for real, one per run of 40 steps on two workers: nothing lost, nothing counted twice.

pytest -m soak tests/integration/chaos -s     prints the table of docs/reliability.md

Two of them, in one run, are struck in CI.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.actors import pids
from support.chaos.run import NUM_STEPS, Judge, Run

from echojepa.runs.audit import audit_run

pytestmark = pytest.mark.timeout(600)
STRIKE_AGAIN_AT = 28
Tree = dict[str, Any]
soak, integration = pytest.mark.soak, pytest.mark.integration


@pytest.fixture
def run(tree: Tree, tmp_path: Path, ray_cluster: str) -> Iterator[Run]:
    with closing(Run(tree, tmp_path, ray_cluster)) as made:
        yield made


@pytest.mark.parametrize(
    ("fault", "actor_class", "signal_number"),
    [
        pytest.param("worker killed", "RayTrainWorker", signal.SIGKILL, marks=soak),
        pytest.param("worker stands still", "RayTrainWorker", signal.SIGSTOP, marks=soak),
    ],
)
def test_a_process_is_struck(
    run: Run,
    fault: str,
    actor_class: str,
    signal_number: signal.Signals,
    judge: Judge,
) -> None:
    driver = run.until_struck()
    os.kill(pids(actor_class)[-1], signal_number)
    run.finish(driver)
    judge(run, fault)


@integration
def test_a_killed_and_a_frozen_worker_change_nothing(run: Run, judge: Judge) -> None:
    """Two faults in one run. Also: as many workers as CPUs, and decoding does not starve."""
    driver = run.until_struck()
    os.kill(pids("RayTrainWorker")[-1], signal.SIGKILL)
    run.wait_for_step(STRIKE_AGAIN_AT)
    os.kill(pids("RayTrainWorker")[-1], signal.SIGSTOP)
    run.finish(driver)
    judge(run, "a worker killed, then one frozen", within=1e-5)
    starts = [attempt["start_step"] for attempt in run.folder.attempts()]
    assert starts[:2] == [0, 10] and starts[2] in (20, 30)
    assert (run.folder.encoder / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        pytest.param("a rank raises", "raise", marks=soak),
        pytest.param("a rank hangs", "hang", marks=soak),
        pytest.param("killed for its memory", "memory", marks=soak),
        pytest.param("killed in the middle of a save", "saving", marks=soak),
    ],
)
def test_a_worker_fails(run: Run, fault: str, name: str, judge: Judge) -> None:
    run.finish(run.start(name))
    judge(run, fault)


@soak
@pytest.mark.parametrize("what", ["driver", "controller"])
def test_what_steers_the_workers_is_killed(run: Run, what: str, judge: Judge) -> None:
    """The same command finds its run and goes on."""
    driver = run.until_struck()
    if what == "driver":
        driver.kill()
    else:
        os.kill(pids("TrainController")[-1], signal.SIGKILL)
    driver.communicate()
    assert driver.returncode != 0
    run.finish()
    judge(run, f"{what} killed, command repeated")


@soak
def test_the_disk_is_full(run: Run, judge: Judge) -> None:
    """The run ends and says what to do; afterwards the same command goes on."""
    driver = run.start("disk")
    _, said = driver.communicate()
    assert driver.returncode != 0
    assert "No space left on device" in said and "Free space" in said
    run.finish(run.start("disk"))
    judge(run, "disk full while saving, command repeated")


@soak
def test_a_decoder_dies_of_a_segmentation_fault(run: Run, judge: Judge) -> None:
    """Ray Data starts another; the workers notice nothing, so there is one attempt."""
    driver = run.until_struck()
    os.kill(pids("MapWorker(MapBatches(_DecodeActor))")[-1], signal.SIGSEGV)
    run.finish(driver)
    outcome = judge(run, "decoder: segmentation fault", restarts=False)
    assert outcome.redone == 0


@soak
def test_a_collapse_is_rolled_back_by_itself(run: Run) -> None:
    """A target without memory at a rate that rises; two workers go back and end healthy."""
    run.tree["optimizer"] |= {
        "lr": {"peak": 2e-2, "start": 1e-5, "warmup_steps": 200},
        "momentum": {"peak": 0.0},
    }
    run.tree["loop"]["checkpoint_every_steps"] = 3
    run.tree["monitor"] = {"lr_factor": 0.02, "window": 10}
    run.write()
    run.finish()
    assert 1 <= len(run.folder.interventions()) <= 3
    assert len(run.folder.attempts()) == 1 + len(run.folder.interventions())
    report = audit_run(run.folder)
    assert not report.findings and report.num_steps == NUM_STEPS
