"""How long a run is, how often things happen in it, and where it stands."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from echojepa.config import Strict, changeable


class LoopConfig(Strict):
    """Length and batch of a run, and how often things happen."""

    num_steps: int = Field(gt=0)
    """Optimiser steps of the whole run; schedules that need a length use it."""
    global_batch: int = Field(gt=0)
    """Clips per optimiser step (G), the same for any number of workers."""
    stop_after_step: int | None = changeable(None, gt=0)
    """Save and end in good order once this many steps are done; a later start goes on."""
    checkpoint_every_steps: int = changeable(500, gt=0)
    keep_last: int = changeable(2, gt=0)
    """Newest checkpoints kept. Two, so that a damaged one has a predecessor."""
    keep_every_steps: int | None = changeable(None, gt=0)
    """Checkpoints at multiples of this many steps are kept for ever."""
    log_every_steps: int = changeable(10, gt=0)
    image_every_steps: int = changeable(500, gt=0)
    """A batch with its masks as an image."""
    probe_every_steps: int | None = changeable(None, gt=0)
    """Fit a small probe on the frozen target this often; null never."""

    @property
    def last_step(self) -> int:
        """Where this start of the run ends."""
        return min(self.num_steps, self.stop_after_step or self.num_steps)


@dataclass
class LoopState:
    """Where a run stands; saved whole, restored whole."""

    step: int = 0
    """Next optimiser step, which is the data cursor as well."""
    origin: int = 0
    """Global sample index at which step 0 began."""
    num_applied: int = 0
    """Steps that changed the weights: Adam's own count."""
    num_seen: int = 0
    """Samples trained on or found unreadable."""
    num_unread: int = 0
    inherited_changes: tuple[int, ...] = ()
    """Seed changes of the run that this one was forked from; see `data.sampling.Seeds`."""
