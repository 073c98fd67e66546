"""No work is lost to a resize: the workers save before Ray Train stops them.

Ray Train ends the running group at once when it wants another size. The controller (where callbacks
run) therefore leaves a request with the cluster and waits; rank 0 sees it, all ranks save after the
step they are at, rank 0 takes the request away, and the ranks stand still until they are stopped.
"""

from __future__ import annotations

import time

from echojepa.on_ray.internals import (
    ControllerCallback,
    Notice,
    ResizingState,
    TrainControllerState,
)

_POLL_SECONDS = 0.1


class SaveRequest:
    """Asks for a checkpoint; it is gone when the checkpoint is there."""

    def __init__(self, notice: Notice) -> None:
        self._notice = notice

    def is_open(self) -> bool:
        """Whether somebody waits for a checkpoint."""
        return self._notice.read() is not None

    def ask_and_wait(self, seconds: float) -> bool:
        """Ask, and wait until it is done; returns whether it was, and asks no longer."""
        self._notice.write("a resize waits")
        deadline = time.monotonic() + seconds
        while self.is_open() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        saved = not self.is_open()
        self.close()
        return saved

    def close(self) -> None:
        """Say that there is nothing to wait for any more."""
        self._notice.remove()


class SaveBeforeResize(ControllerCallback):  # type: ignore[misc]  # Ray has no types
    """Asks for a checkpoint whenever a running group is about to be resized."""

    def __init__(self, request: SaveRequest, wait_seconds: float) -> None:
        self._request = request
        self._wait_seconds = wait_seconds

    def after_controller_state_update(
        self, previous_state: TrainControllerState, current_state: TrainControllerState
    ) -> None:
        """A group that can't save in time is resized all the same; it redoes what it must."""
        del previous_state
        if isinstance(current_state, ResizingState):
            self._request.ask_and_wait(self._wait_seconds)
