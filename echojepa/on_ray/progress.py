"""A readable line about a run on the driver's terminal, read from the run folder itself.

The folder is the one truth that the workers write and everyone sees, so this works the same for a
local run, a submitted job and a run that somebody else started.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from echojepa.runs.folder import RunFolder, read_lines

_POLL_SECONDS = 0.5
_SPEAKING_EVENTS = {
    "learning_rate_scaled": "the stated learning rate {stated:g} becomes {peak:g}",
    "collapse": "the representation has collapsed at step {step}: {reason}",
    "drain": "a node of the group will be taken away in {seconds_left} s; saving",
    "hang": "the worker of rank {rank} stood still for {seconds} s and ended itself",
    "not_mirrored": "step {step} was not copied to the mirror: {reason}",
    "fetched_from_mirror": "the run folder was lost; step {step} was fetched from the mirror",
    "attempt_failed": "the worker of rank {rank} ended with {error}",
    "damaged_checkpoint": "a damaged checkpoint was passed over: {reason}",
    "non_finite_step": "step {step} dropped: a gradient was not finite",
    "empty_step": "step {step} dropped: none of its clips could be read",
    "unreadable_clip": "clip {clip_id} could not be read: {problem}",
}


class Progress:
    """Shows steps, loss, speed and everything unusual while its block runs."""

    def __init__(self, folder: RunFolder, num_steps: int, *, enabled: bool) -> None:
        self._folder = folder
        self._num_steps = num_steps
        self._enabled = enabled
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._console = Console(stderr=True)
        self._seen = self._counts()

    def __enter__(self) -> Progress:
        if self._enabled:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._enabled:
            self._thread.join()

    def _counts(self) -> dict[str, int]:
        names = ("metrics.jsonl", "events.jsonl", "attempts.jsonl")
        return {name: len(read_lines(self._folder.path / name)) for name in names}

    def _new(self, name: str) -> list[dict[str, Any]]:
        lines = read_lines(self._folder.path / name)
        fresh = lines[self._seen[name] :]
        self._seen[name] = len(lines)
        return fresh

    def _watch(self) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[state]}"),
        )
        with Bar(*columns, console=self._console, disable=not self._console.is_terminal) as bar:
            task = bar.add_task("pretrain", total=self._num_steps, state="starting workers")
            while True:
                last_round = self._done.is_set()
                for event in self._new("events.jsonl"):
                    if event["kind"] in _SPEAKING_EVENTS:
                        self._console.print(_SPEAKING_EVENTS[event["kind"]].format(**event))
                for attempt in self._new("attempts.jsonl"):
                    self._console.print(
                        f"{attempt['world_size']} worker(s) at step {attempt['start_step']} "
                        f"({attempt['source']})"
                    )
                for metrics in self._new("metrics.jsonl"):
                    state = describe(metrics)
                    bar.update(task, completed=metrics["step"], state=state)
                    if not self._console.is_terminal:
                        line = f"step {metrics['step']}/{self._num_steps}  {state}"
                        self._console.print(line, soft_wrap=True)
                if last_round:
                    return
                time.sleep(_POLL_SECONDS)


def describe(metrics: dict[str, Any]) -> str:
    """The numbers a person wants to see, in one line."""
    text = (
        f"loss {metrics['loss']:.4f}  rank {metrics['effective_rank']:.1f}  "
        f"{metrics['clips_per_second']:.1f} clips/s  waiting {metrics['data_wait_share']:.0%}"
    )
    scores = [
        f"{name.removeprefix('probe/')} {value:.2f}"
        for name, value in metrics.items()
        if name.startswith("probe/") and name.endswith(("_r2", "_auroc"))
    ]
    return "  ".join([text, *scores])
