"""The plan of the stream: which sample sits in which block, and which rank a block goes to.

Optimiser step t trains on the samples [t G, (t+1) G), G being the global batch, whatever the number
of workers (counted from `origin` in a run that was forked from another). A step is cut into slots:
G samples, plus padding so that every worker gets the same number. A micro-batch is a run of
consecutive slots and travels as blocks of `block_rows` clips, the last of them filled up with rows
that are cut off before anything is computed; block k of the stream goes to rank k mod n. Nothing
here reads a video or knows Ray: see `data.block` and `on_ray.stream`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from echojepa.data.sampling import ClipConfig

PADDING = -1
"""The sample index of a slot beyond the global batch."""
BLOCK_BYTES = 64 * 2**20
"""What blocks should be near to."""
MAX_BLOCK_BYTES = 128 * 2**20
"""Ray cuts output blocks at 192 MiB, which would break the order of blocks over ranks."""
MAX_FILLING = 0.05
"""Less than this share of a micro-batch is added to it to fill its last block."""
LEAST_SEGMENT_STEPS = 60
SEGMENT_SECONDS = 150.0
"""A segment should last so long: its decoders take half a minute to start."""
FIRST_SEGMENT_BLOCKS, MAX_SEGMENT_BLOCKS = 4096, 65_536
"""Blocks of a segment before the pace of a run is known, and at most. Ray registers each of them
when the segment opens."""


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
    """Clips per block."""
    origin: int = 0
    """Global sample index at which step 0 begins; above 0 in a run forked from another."""

    @property
    def blocks_per_micro(self) -> int:
        """Blocks of one micro-batch."""
        return -(-self.micro_batch // self.block_rows)

    @property
    def blocks_per_step(self) -> int:
        """Blocks of all ranks in one step."""
        return self.world_size * self.accumulation * self.blocks_per_micro

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
        # With micro-batches of 3 clips the second block of each is its last slot and one filler.
        pass_, within = divmod(block, self.world_size * self.blocks_per_micro)
        part, rank = divmod(within, self.world_size)
        rows = part * self.block_rows + np.arange(self.block_rows, dtype=np.int64)
        slots = (pass_ * self.world_size + rank) * self.micro_batch + rows
        first_sample = self.origin + step * self.global_batch
        planned = (rows < self.micro_batch) & (slots < self.global_batch)
        return np.where(planned, first_sample + slots, PADDING)

    def rank_blocks(self, rank: int) -> range:
        """Blocks of every step that rank `rank` receives, in order."""
        return range(rank, self.blocks_per_step, self.world_size)


def stream_shape(
    global_batch: int,
    max_micro: int,
    world_size: int,
    clip: ClipConfig,
    origin: int = 0,
    group: int = 1,
) -> StreamShape:
    """Cut a global batch: as few forward passes as `max_micro` allows, blocks near 64 MiB.

    Args:
        group: clips that stay together: micro-batches are whole groups, if `max_micro` has room.
    """
    group = group if group <= max_micro else 1
    groups = -(-global_batch // group)
    per_rank = -(-groups // world_size)
    accumulation = -(-per_rank // (max_micro // group))
    micro = -(-per_rank // accumulation) * group
    rows = _block_rows(micro, clip.num_bytes)
    return StreamShape(global_batch, world_size, micro, accumulation, rows, origin)


def _block_rows(micro: int, clip_bytes: int) -> int:
    """Rows of the blocks of a micro-batch, which may be a prime number."""
    fitting = max(1, MAX_BLOCK_BYTES // clip_bytes)
    even = {-(-micro // count) for count in range(1, micro + 1)}
    filled_well = [n for n in even if n <= fitting and -micro % n < MAX_FILLING * micro]
    return min(filled_well, key=lambda n: abs(math.log(n * clip_bytes / BLOCK_BYTES)))


@dataclass(frozen=True)
class Segment:
    """The steps [start, stop) of one Ray Data pipeline."""

    start: int
    stop: int


def segment_after(
    start: int,
    last: int,
    shape: StreamShape,
    segment_steps: int | None = None,
    step_seconds: float | None = None,
) -> Segment:
    """The segment that begins at step `start` of a run of `last` steps.

    Args:
        segment_steps: its length, if somebody has chosen one.
        step_seconds: the pace of the run, if it is known.
    """
    blocks = FIRST_SEGMENT_BLOCKS
    if step_seconds is not None:
        blocks = math.ceil(SEGMENT_SECONDS / step_seconds) * shape.blocks_per_step
        blocks = min(max(blocks, FIRST_SEGMENT_BLOCKS), MAX_SEGMENT_BLOCKS)
    length = segment_steps or max(LEAST_SEGMENT_STEPS, blocks // shape.blocks_per_step)
    return Segment(start, min(start + length, last))


def segment_blocks(segment: Segment, shape: StreamShape) -> Iterator[NDArray[np.int64]]:
    """Sample indices of every block of a segment, in stream order."""
    for step in range(segment.start, segment.stop):
        for block in range(shape.blocks_per_step):
            yield shape.block_samples(step, block)
