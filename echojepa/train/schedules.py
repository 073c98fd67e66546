"""Learning rate, weight decay and EMA momentum as pure functions of the optimiser step.

As in V-JEPA 2, a step is counted before it is used: step 0 trains with what is reached after 1 of
`warmup_steps`, never with `start` itself.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from echojepa.config import Strict


class Schedule(Strict):
    """Warm-up from `start` to `peak`, then towards `final` by `shape` until `steps`."""

    peak: float = Field(ge=0, allow_inf_nan=False)
    """Value after the warm-up, and forever with shape constant."""
    shape: Literal["constant", "cosine", "linear"] = "constant"
    """The course after the warm-up."""
    start: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Value at step 0 when there is a warm-up; null is `peak`."""
    warmup_steps: int = Field(0, ge=0)
    """Optimiser steps from `start` to `peak`."""
    final: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Value reached at `steps`; needed by cosine and linear."""
    steps: int | None = Field(None, gt=0)
    """Length, warm-up included; null is the length of the run."""

    @model_validator(mode="after")
    def _complete(self) -> Schedule:
        if self.shape != "constant" and self.final is None:
            raise ValueError(f"shape {self.shape} needs a final value")
        if self.shape == "constant" and self.final is not None:
            raise ValueError("shape constant has no final value; use cosine or linear")
        if self.steps is not None and self.steps <= self.warmup_steps:
            raise ValueError(f"{self.warmup_steps} warm-up steps do not fit into {self.steps}")
        return self

    def times(self, factor: float) -> Schedule:
        """The same course, every value multiplied."""
        names = ("peak", "start", "final")
        values = {name: getattr(self, name) for name in names}
        scaled = {name: value * factor for name, value in values.items() if value is not None}
        return self.model_copy(update=scaled)

    def value(self, step: int, run_steps: int) -> float:
        """The value that optimiser step `step` (from 0) trains with."""
        counted = step + 1
        if counted < self.warmup_steps:
            start = self.peak if self.start is None else self.start
            return start + (self.peak - start) * counted / self.warmup_steps
        if self.final is None:
            return self.peak
        length = max(1, (self.steps or run_steps) - self.warmup_steps)
        progress = min(1.0, (counted - self.warmup_steps) / length)
        if self.shape == "linear":
            return self.peak + (self.final - self.peak) * progress
        return self.final + (self.peak - self.final) * 0.5 * (1 + math.cos(math.pi * progress))
