"""Who runs the loop: the interface between a training process and its launcher.

`on_ray.worker` is the worker of a Ray cluster. `LocalWorker` is one process without Ray or
DeepSpeed: the same samples, the same masks, the same loop. Tests compare against it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from torch import nn

from echojepa.data.block import BlockDecoder, Columns, DataConfig
from echojepa.data.stream import Segment, StreamShape
from echojepa.randomness import Seeds
from echojepa.train.engine import Engine, OptimizerConfig, PlainEngine


class Worker(Protocol):
    """One of `world_size` training processes."""

    rank: int
    world_size: int

    def engine(
        self,
        module: nn.Module,
        averages: Mapping[str, str],
        config: OptimizerConfig,
        shape: StreamShape,
    ) -> Engine:
        """Wrap a freshly built module; `averages` as in `objectives.objective.Facts`."""

    def open_segment(
        self, data: DataConfig, seeds: Seeds, shape: StreamShape, segment: Segment
    ) -> Iterator[Columns]:
        """This rank's blocks of a segment, in order; every rank calls this at the same step."""

    def report(self, metrics: dict[str, float]) -> None:
        """Hand metrics to the launcher of the run; every rank calls this at the same step."""

    def beat(self) -> None:
        """Every rank calls this whenever it has made progress; long silence means that it hangs."""

    def finished(self) -> None:
        """The loop has ended; what comes now may take as long as it likes."""

    def save_requested(self) -> bool:
        """Whether the launcher of the run wants a checkpoint after this step; rank 0 decides."""

    def save_done(self) -> None:
        """Every rank calls this after a requested checkpoint; it may wait to be stopped here."""


class LocalWorker:
    """The only process of a run; decodes in its own thread."""

    rank = 0
    world_size = 1

    def engine(
        self,
        module: nn.Module,
        averages: Mapping[str, str],
        config: OptimizerConfig,
        shape: StreamShape,
    ) -> Engine:
        """See `Worker`."""
        del shape
        return PlainEngine(module, averages, config)

    def open_segment(
        self, data: DataConfig, seeds: Seeds, shape: StreamShape, segment: Segment
    ) -> Iterator[Columns]:
        """See `Worker`."""
        decode = BlockDecoder(data, seeds)
        for step in range(segment.start, segment.stop):
            for block in shape.rank_blocks(self.rank):
                yield decode(shape.block_samples(step, block))

    def report(self, metrics: dict[str, float]) -> None:
        """See `Worker`; nobody listens."""

    def beat(self) -> None:
        """See `Worker`; nobody listens."""

    def finished(self) -> None:
        """See `Worker`; nobody watches."""

    def save_requested(self) -> bool:
        """See `Worker`; nobody asks."""
        return False

    def save_done(self) -> None:
        """See `Worker`."""
