"""When the loop saves: write the checkpoint, keep what must be kept, and copy it elsewhere."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from echojepa.errors import StorageError
from echojepa.runs import checkpoint
from echojepa.runs.folder import RunFolder
from echojepa.runs.mirror import Mirror
from echojepa.runs.rollback import CollapseGuard
from echojepa.runs.shards import without
from echojepa.train import collectives
from echojepa.train.engine import Engine
from echojepa.train.loop import LoopConfig
from echojepa.train.step import LoopState


@dataclass
class RunSaver:
    """Saves one attempt of a run into its folder; see `train.step.Saver`."""

    config: LoopConfig
    folder: RunFolder
    engine: Engine
    guard: CollapseGuard
    attempt: int
    origin: dict[str, Any]
    """What every checkpoint says of where it comes from."""
    frozen: tuple[str, ...]
    """What checkpoints do without; as in `objectives.objective.Facts`."""
    mirror: Mirror | None
    """On rank 0, if the run is copied somewhere."""

    def save(self, state: LoopState) -> None:
        """Write a checkpoint, unless somebody started the same run a second time.

        Raises:
            StorageError: it cannot be written, or another group of workers has taken the run
                folder over.
        """
        latest = collectives.broadcast(self.folder.attempts()[-1]["attempt"])
        if latest != self.attempt:
            raise StorageError(
                f"start {latest} of this run has taken its folder over from start {self.attempt}",
                "Run a folder once at a time; the later start goes on.",
                str(self.folder.path),
            )
        content = {"loop": asdict(state), "attempt": self.attempt, **self.origin}
        retention = checkpoint.Retention(
            self.config.keep_last, self.config.keep_every_steps, self.guard.healthy_until
        )
        shards = without(self.engine.shards(), self.frozen)
        saved = checkpoint.save(self.folder.checkpoints, state.step, shards, content, retention)
        if self.mirror is not None:
            self.mirror.submit(saved, retention)

    def __enter__(self) -> RunSaver:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        """Wait for the copies, unless the run has failed: then what is not there yet is not."""
        if self.mirror is not None and kind is None:
            self.mirror.close()
