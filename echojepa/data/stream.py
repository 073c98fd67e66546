"""The plan of the stream: which sample sits in which block, and which rank a block goes to.

Optimiser step t trains on the samples [t G, (t+1) G), G being the global batch, whatever the number
of workers (counted from `origin` in a run that was forked from another). A step is cut into slots:
G samples, plus padding so that every worker gets the same number. A micro-batch is a run of
consecutive slots and travels as blocks of `block_rows` clips; block k of the stream goes to rank
k mod n. Nothing here reads a video or knows Ray: see `data.block` and `on_ray.stream`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from echojepa.data.sampling import ClipConfig

PADDING = -1
"""The sample index of a slot beyond the global batch."""
MAX_BLOCK_BYTES = 64 * 2**20
"""Ray cuts output blocks at 192 MiB, which would break the order of blocks over ranks."""
MAX_SEGMENT_BLOCKS = 4096


@dataclass(frozen=True)
class StreamShape:
    """How the global batch is cut for a number of workers."""

    global_batch: int
    world_size: int
    micro_batch: int
    """Clips per worker and forward pass."""
    accumulation: int
    """Forward passes per optimiser step."""
    block_rows: int
    """Clips per block; divides `micro_batch`."""
    origin: int = 0
    """Global sample index at which step 0 begins; above 0 in a run forked from another."""

    @property
    def blocks_per_step(self) -> int:
        """Blocks of all ranks in one step."""
        return self.world_size * self.accumulation * (self.micro_batch // self.block_rows)

    def block_samples(self, step: int, block: int) -> NDArray[np.int64]:
        """Global sample indices of a block of a step, [block_rows]; PADDING where none is left.

        Block k belongs to rank k mod n; the blocks of one micro-batch hold consecutive samples.
        """
        # Worked example: 2 workers, micro-batches of 4 clips, blocks of 2 clips, 2 accumulated.
        #   block           0    1    2    3  |  4      5      6      7
        #   rank            0    1    0    1  |  0      1      0      1
        #   slots          0 1  4 5  2 3  6 7 | 8 9  12 13  10 11  14 15
        # Rank 0 trains on the micro-batches [0 1 2 3] and [8 9 10 11]. With a global batch of 14
        # the slots 14 and 15 are padding: `step` 3 then holds the samples 42 to 55.
        per_micro = self.micro_batch // self.block_rows
        pass_, within = divmod(block, self.world_size * per_micro)
        part, rank = divmod(within, self.world_size)
        first = (pass_ * self.world_size + rank) * self.micro_batch + part * self.block_rows
        slots = np.arange(first, first + self.block_rows, dtype=np.int64)
        first_sample = self.origin + step * self.global_batch
        return np.where(slots < self.global_batch, first_sample + slots, PADDING)

    def rank_blocks(self, rank: int) -> range:
        """Blocks of every step that rank `rank` receives, in order."""
        return range(rank, self.blocks_per_step, self.world_size)


def stream_shape(
    global_batch: int, max_micro: int, world_size: int, clip: ClipConfig, origin: int = 0
) -> StreamShape:
    """Cut a global batch: as few forward passes as `max_micro` allows, blocks below 64 MiB."""
    per_rank = -(-global_batch // world_size)
    accumulation = -(-per_rank // max_micro)
    micro = -(-per_rank // accumulation)
    fitting = max(1, MAX_BLOCK_BYTES // clip.num_bytes)
    rows = max(d for d in range(1, micro + 1) if micro % d == 0 and d <= fitting)
    return StreamShape(global_batch, world_size, micro, accumulation, rows, origin)


@dataclass(frozen=True)
class Segment:
    """The steps [start, stop) of one Ray Data pipeline."""

    start: int
    stop: int


def segment_after(start: int, last: int, shape: StreamShape, segment_steps: int | None) -> Segment:
    """The segment that begins at step `start` of a run of `last` steps."""
    length = segment_steps or max(2, MAX_SEGMENT_BLOCKS // shape.blocks_per_step)
    return Segment(start, min(start + length, last))


def segment_blocks(segment: Segment, shape: StreamShape) -> Iterator[NDArray[np.int64]]:
    """Sample indices of every block of a segment, in stream order."""
    for step in range(segment.start, segment.stop):
        for block in range(shape.blocks_per_step):
            yield shape.block_samples(step, block)
