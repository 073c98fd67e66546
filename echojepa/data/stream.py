"""What flows: which sample sits in which block, how a block is decoded, and how it is checked.

Optimiser step t trains on the samples [t G, (t+1) G), G being the global batch, whatever the number
of workers (counted from `origin` in a run that was forked from another). A step is cut into slots:
G samples, plus padding so that every worker gets the same number. A micro-batch is a run of
consecutive slots and travels as blocks of `block_rows` clips; block k of the stream goes to rank
k mod n. Nothing in this file knows Ray: `data.pipeline` runs `BlockDecoder` in Ray Data actors,
`LocalWorker` runs it inline.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echojepa.config import Strict, changeable
from echojepa.data.augment import crop_resize
from echojepa.data.clip_table import ClipTable, open_clips
from echojepa.data.decode.frames import DecoderName, attempt, read_frames
from echojepa.data.decode.journal import CrashJournal
from echojepa.data.manifest import ClipFilter
from echojepa.data.mixture import MixtureConfig
from echojepa.data.sampling import ClipConfig, Seeds, draw
from echojepa.errors import BrokenInvariantError, ClipError

PADDING = -1
MAX_BLOCK_BYTES = 64 * 2**20
"""Ray cuts output blocks at 192 MiB, which would break the order of blocks over ranks."""
MAX_SEGMENT_BLOCKS = 4096

Columns = dict[str, NDArray[Any]]


class DataConfig(Strict):
    """Where clips come from and how they are cut."""

    manifest: str = changeable()
    """Path of `manifest.parquet`. It may move; its content is fixed by a fingerprint."""
    where: ClipFilter = ClipFilter()
    """Which rows of it."""
    mixture: MixtureConfig | None = None
    """Shares of its data sets; null takes every clip once per epoch."""
    clip: ClipConfig = ClipConfig()
    """Window, rate, size and crop of a clip."""
    max_bad_fraction: float = changeable(0.001, ge=0, le=1)
    """The run stops when more than this share of its samples could not be read."""
    decoder: DecoderName = changeable("auto")
    """auto picks by container; pyav, decord and dicom force one."""
    storage_patience_seconds: float = changeable(600.0, ge=0)
    """For how long an object store that fails is asked again before the run stops."""
    num_decoders: int | None = changeable(None, gt=0)
    """Most decode actors at a time; null leaves it to Ray Data, up to the cluster's CPUs."""
    cpus_per_decoder: float = changeable(1.0, gt=0)
    """CPUs one decode actor reserves."""
    segment_steps: int | None = changeable(None, gt=1)
    """Steps per segment of the stream; null takes as many as make 4,096 blocks."""

    def clips(self) -> ClipTable:
        """Open the clip table; see `open_clips` for errors."""
        return open_clips(self.manifest, self.where, self.mixture)


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


class BlockDecoder:
    """Turns sample indices into a block of clips. One per process; opens the clip table once."""

    def __init__(self, data: DataConfig, seeds: Seeds, journal: Path | None = None) -> None:
        self._data = data
        self._seeds = seeds
        self._clips = data.clips()
        self._journal = CrashJournal(journal) if journal else None

    def __call__(self, s: NDArray[np.int64]) -> Columns:
        """Decode the samples s, [M]. Always M rows; a clip that cannot be read has weight 0."""
        clip = self._data.clip
        rows = np.where(s == PADDING, 0, self._clips.rows_of(np.maximum(s, 0), self._seeds))
        pixels = np.zeros((len(s), clip.num_frames, clip.size, clip.size, 3), np.uint8)
        weights = np.zeros(len(s), np.float32)
        held = np.zeros(len(s), np.int32)
        problems = np.array([""] * len(s), dtype=object)
        for i, (sample, row) in enumerate(zip(s.tolist(), rows.tolist(), strict=True)):
            if sample == PADDING:
                continue
            decoded, problems[i] = attempt(partial(self._decode, sample, self._clips.row(row)))
            if decoded is not None:
                pixels[i], held[i] = decoded
                weights[i] = 1.0
        ids = np.array(self._clips.clip_ids(rows), dtype=object)
        ids[s == PADDING] = ""
        return {
            "s": s,
            "clip_id": ids,
            "weight": weights,
            "held_frames": held,
            "problem": problems,
            "clip": pixels,
        }

    def _decode(self, s: int, row: dict[str, Any]) -> tuple[NDArray[np.uint8], int]:
        """Pixels, and how many frames repeat the last one."""
        window, box = draw(self._seeds, s, row, self._data.clip)
        if self._journal:
            self._journal.begin(s)
        try:
            frames = read_frames(
                row["uri"],
                window.indices,
                self._data.decoder,
                row["num_frames"],
                self._data.storage_patience_seconds,
            )
        finally:
            if self._journal:
                self._journal.end()
        if frames.shape[1:3] != (row["height"], row["width"]):
            found = f"{frames.shape[1]}x{frames.shape[2]}"
            raise ClipError(
                "decode", "size_mismatch", f"{found}, not {row['height']}x{row['width']}"
            )
        return crop_resize(frames, box, self._data.clip.size), window.held_frames


def check_block(
    block: Columns, expected: NDArray[np.int64], clips: ClipTable, seeds: Seeds
) -> None:
    """Prove that a received block is the planned one, before anything is computed from it.

    Raises:
        BrokenInvariantError: an index is missing, out of order, or carries another clip's pixels.
    """
    if not np.array_equal(block["s"], expected):
        raise BrokenInvariantError(f"expected samples {expected}, the stream gave {block['s']}")
    real = expected != PADDING
    planned = clips.clip_ids(clips.rows_of(expected[real], seeds))
    if planned != [str(i) for i in block["clip_id"][real]]:
        raise BrokenInvariantError(f"samples {expected[real]} carry other clips than planned")
