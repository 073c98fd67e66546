"""Runs a pretraining job whose workers meet one fault, once. Started by `runs.py`.

python driver.py ADDRESS CONFIG.yaml [FAULT]

The faults here strike from inside; those that strike from outside are in `test_chaos.py`. Each
leaves a file `struck` beside the run folder, so that it strikes the first attempt only.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

from echojepa.config import load
from echojepa.launch.pretrain import PretrainJob, launch
from echojepa.on_ray import group

STRIKE_AT = 15
"""Steps done when a fault strikes: in the middle between two checkpoints."""
Fault = Callable[[Callable[[], bool]], None]


def at_step(action: Callable[[], None]) -> Fault:
    """A fault of rank 1 in the step after `STRIKE_AT`."""

    def plant(first_time: Callable[[], bool]) -> None:
        from echojepa.train.loop import Loop

        train_step = Loop._train_step

        def faulty(self: Any, batch: Any, weight: float) -> Any:
            if batch.step == STRIKE_AT and self.worker.rank == 1 and first_time():
                action()
            return train_step(self, batch, weight)

        Loop._train_step = faulty  # type: ignore[method-assign]

    return plant


def raise_an_error() -> None:
    raise RuntimeError("planted")


def hang() -> None:
    while True:
        time.sleep(60)


def run_out_of_memory() -> None:
    """What the kernel's and Ray's out-of-memory killers do to a process."""
    hoard = bytearray(2**28)
    os.kill(os.getpid(), signal.SIGKILL)
    del hoard


def killed_while_saving(first_time: Callable[[], bool]) -> None:
    """Rank 1 dies with half of the second checkpoint's shard written."""
    from echojepa.runs import checkpoint

    write = checkpoint.write_shards

    def faulty(folder: Path, shards: Any, rank: int, world_size: int) -> Path:
        file = write(folder, shards, rank, world_size)
        if rank == 1 and "step_00000020" in str(folder) and first_time():
            with file.open("r+b") as opened:
                opened.truncate(file.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        return file

    checkpoint.write_shards = faulty


def full_disk(first_time: Callable[[], bool]) -> None:
    """Writing the second checkpoint fails as on a full disk."""
    from echojepa.runs import checkpoint

    write = checkpoint.write_shards

    def faulty(folder: Path, shards: Any, rank: int, world_size: int) -> Path:
        if rank == 1 and "step_00000020" in str(folder) and first_time():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(folder, shards, rank, world_size)

    checkpoint.write_shards = faulty


FAULTS: dict[str, Fault] = {
    "raise": at_step(raise_an_error),
    "hang": at_step(hang),
    "memory": at_step(run_out_of_memory),
    "saving": killed_while_saving,
    "disk": full_disk,
}


def main(address: str, config: str, fault: str | None = None) -> None:
    job = load(config, [], PretrainJob)
    if fault is not None:
        struck, plant, run_worker = (
            Path(job.run_dir).parent / "struck",
            FAULTS[fault],
            group.run_worker,
        )

        def first_time() -> bool:
            if struck.exists():
                return False
            struck.touch()
            return True

        def faulty_worker(settings: dict[str, Any]) -> dict[str, Any]:
            plant(first_time)
            return run_worker(settings)

        group.run_worker = faulty_worker
    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    launch(job, show_progress=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
