"""A config with everything that real ones have."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from echojepa.config import (
    Strict,
    changeable,
)


class Rate(Strict):
    """A nested section."""

    peak: float = 1e-3
    warmup_steps: int = Field(0, ge=0)
    shape: Literal["constant", "cosine"] = "constant"


class Generator(Strict):
    """An item of a list."""

    num_blocks: int = 8
    aspect: tuple[float, float] = (0.75, 1.5)


class Run(Strict):
    """A config with everything the real ones have."""

    run_dir: str = changeable()
    seed: int = 0
    enabled: bool = False
    rate: Rate = Rate()
    probe: Rate | None = changeable(None)
    generators: tuple[Generator, ...] = (Generator(),)

    @model_validator(mode="after")
    def _seeded(self) -> Run:
        if self.seed == 13:
            raise ValueError("seed 13 is unlucky")
        return self
