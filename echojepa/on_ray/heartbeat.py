"""A worker that hangs ends itself, so that its group is started again.

A rank that waits forever in a collective is alive: Ray's health checks see nothing wrong with it.
Only the loop knows that no step gets done.
"""

from __future__ import annotations

import faulthandler
import math
import os
import threading
import time

from echojepa.runs.folder import RunFolder

_EXIT_CODE = 70
_REPORT_SECONDS = 10.0


class Heartbeat:
    """Ends this process if it has beaten once and then stands still for too long.

    The first step has a limit of its own: decoders start, and the first clips come from afar. What
    every thread was doing is written into the run folder first, into `hangs/`.
    """

    def __init__(
        self, folder: RunFolder, rank: int, limit_seconds: float, first_limit_seconds: float
    ) -> None:
        self._folder = folder
        self._rank = rank
        self._limit = first_limit_seconds
        self._later_limit = limit_seconds
        self._last = time.monotonic()
        self._thread: threading.Thread | None = None

    def beat(self) -> None:
        """The process makes progress; the first call, before the first step, begins the watch."""
        self._last = time.monotonic()
        if self._thread is not None:
            self._limit = self._later_limit
        else:
            self._thread = threading.Thread(target=self._watch, name="heartbeat", daemon=True)
            self._thread.start()

    def pause(self) -> None:
        """Watch no longer until the next beat."""
        self._last = math.inf

    def _watch(self) -> None:
        while True:
            time.sleep(min(1.0, self._later_limit / 4))
            silence = time.monotonic() - self._last
            if silence > self._limit:
                # The run's storage may be what hangs, so the report gets a limit of its own.
                report = threading.Thread(target=self._report, args=(silence,), daemon=True)
                report.start()
                report.join(_REPORT_SECONDS)
                os._exit(_EXIT_CODE)

    def _report(self, silence: float) -> None:
        hangs = self._folder.path / "hangs"
        hangs.mkdir(exist_ok=True)
        file = hangs / f"{time.time_ns()}_rank_{self._rank}.txt"
        with file.open("w") as opened:
            faulthandler.dump_traceback(opened, all_threads=True)
        self._folder.event(
            "hang", -1, rank=self._rank, seconds=round(silence, 1), stacks=f"hangs/{file.name}"
        )
