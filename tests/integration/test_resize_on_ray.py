"""The request for a checkpoint before a resize: asked, answered, or given up in time."""

from __future__ import annotations

import os
import threading
import time

import pytest
import ray
from ray.train.v2._internal.execution.controller.state import ResizingState, RunningState
from ray.train.v2._internal.execution.scaling_policy import ResizeDecision

from echojepa.on_ray.internals import Notice
from echojepa.on_ray.resize import SaveBeforeResize, SaveRequest

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]


def notice(name: str) -> Notice:
    """One that no earlier test has written."""
    return Notice(f"test-{os.getpid()}", name)


def test_another_process_answers_at_once() -> None:
    """Nothing is shared with it but the cluster: no folder, no clock."""
    request = SaveRequest(notice("answered"))

    @ray.remote(num_cpus=0)
    def worker(asked: SaveRequest) -> int:
        while not asked.is_open():
            time.sleep(0.01)
        asked.close()
        return os.getpid()

    answered = worker.remote(request)
    assert request.ask_and_wait(60.0)
    assert ray.get(answered) != os.getpid()
    assert not request.is_open()


def test_asking_returns_as_soon_as_it_is_answered() -> None:
    request = SaveRequest(notice("soon"))
    seen: list[bool] = []

    def worker() -> None:
        while not request.is_open():
            time.sleep(0.01)
        seen.append(True)
        request.close()

    thread = threading.Thread(target=worker)
    thread.start()
    began = time.monotonic()
    assert request.ask_and_wait(60.0)
    assert time.monotonic() - began < 10
    thread.join()
    assert seen == [True]


def test_nobody_answers() -> None:
    request = SaveRequest(notice("nobody"))
    assert not request.ask_and_wait(0.3)
    assert not request.is_open(), "a later group must not save for nobody"


def test_only_a_running_group_that_is_resized_is_asked() -> None:
    asked: list[float] = []

    class Counting(SaveRequest):
        def ask_and_wait(self, seconds: float) -> bool:
            asked.append(seconds)
            return True

    callback = SaveBeforeResize(Counting(notice("counting")), 7.0)
    resizing = ResizingState(ResizeDecision(num_workers=2, resources_per_worker={}))
    callback.after_controller_state_update(RunningState(), RunningState())
    assert asked == []
    callback.after_controller_state_update(RunningState(), resizing)
    assert asked == [7.0]


def test_notes_are_replaced_and_removed() -> None:
    one, other = notice("one"), notice("other")
    assert one.read() is None
    one.write("first")
    one.write("second")
    other.write("else")
    assert (one.read(), other.read()) == ("second", "else")
    one.remove()
    one.remove()
    assert (one.read(), other.read()) == (None, "else")
