"""The request for a checkpoint before a resize: asked, answered, or given up in time."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from ray.train.v2._internal.execution.controller.state import ResizingState, RunningState
from ray.train.v2._internal.execution.scaling_policy import ResizeDecision

from echojepa.on_ray.resize import SaveBeforeResize, SaveRequest


def test_asking_returns_as_soon_as_it_is_answered(tmp_path: Path) -> None:
    request = SaveRequest(tmp_path / "launch" / "save_requested")
    seen: list[bool] = []

    def worker() -> None:
        while not request.is_open():
            time.sleep(0.01)
        seen.append(True)
        request.close()

    thread = threading.Thread(target=worker)
    thread.start()
    assert request.ask_and_wait(60.0)
    thread.join()
    assert seen == [True]
    assert not request.is_open()


def test_nobody_answers(tmp_path: Path) -> None:
    request = SaveRequest(tmp_path / "save_requested")
    assert not request.ask_and_wait(0.3)
    assert not request.is_open(), "a later group must not save for nobody"


def test_only_a_running_group_that_is_resized_is_asked(tmp_path: Path) -> None:
    asked: list[float] = []

    class Counting(SaveRequest):
        def ask_and_wait(self, seconds: float) -> bool:
            asked.append(seconds)
            return True

    callback = SaveBeforeResize(Counting(tmp_path / "save_requested"), 7.0)
    resizing = ResizingState(ResizeDecision(num_workers=2, resources_per_worker={}))
    callback.after_controller_state_update(RunningState(), RunningState())
    assert asked == []
    callback.after_controller_state_update(RunningState(), resizing)
    assert asked == [7.0]
