"""The training side of the stream: checked micro-batches per step, fetched ahead of need."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from echojepa.data.block import Columns, check_block
from echojepa.data.clip_table import ClipTable
from echojepa.data.problem import ClipProblem, Problem, raise_if_storage_failed
from echojepa.data.stream import PADDING, Segment, StreamShape, segment_after
from echojepa.errors import BrokenInvariantError
from echojepa.randomness import Seeds
from echojepa.train import collectives

SegmentOpener = Callable[[Segment], Iterator[Columns]]
_MICRO_BATCHES_AHEAD = 2


@dataclass(frozen=True)
class MicroBatch:
    """One forward pass of one worker."""

    samples: NDArray[np.int64]
    """Global sample indices, [B]; PADDING in padded rows."""
    clip_ids: list[str]
    weights: torch.Tensor
    """1 for a clip, 0 for padding and for clips that could not be read, [B] float32."""
    pixels: torch.Tensor
    """uint8, [B, T, H, W, 3], on the host (pinned if there is a CUDA device)."""
    problems: list[Problem | None]
    """Why a clip could not be read; None for the others, [B]."""
    num_held_frames: int
    """Frames that repeat the last one of a video that was too short."""


@dataclass(frozen=True)
class StepBatch:
    """Everything one worker trains on in one optimiser step."""

    step: int
    micro_batches: list[MicroBatch]
    wait_seconds: float
    """How long the loop stood still for these data."""

    @property
    def total_weight(self) -> float:
        """Sum of this worker's weights."""
        return float(sum(m.weights.sum() for m in self.micro_batches))

    def problems(self) -> list[ClipProblem]:
        """This worker's clips that could not be read."""
        return [
            ClipProblem(clip_id, problem)
            for m in self.micro_batches
            for clip_id, problem in zip(m.clip_ids, m.problems, strict=True)
            if problem is not None
        ]


@dataclass
class Feed:
    """Iterates over the steps [start, stop), opening one segment of the stream after the other.

    `open_segment` is called on every rank at the same step: the next segment opens half-way through
    the current one, so that its decoders are warm when it begins.
    """

    open_segment: SegmentOpener
    shape: StreamShape
    rank: int
    clips: ClipTable
    seeds: Seeds
    start: int
    stop: int
    segment_steps: int | None = None
    _next: _Segment | None = field(default=None, init=False)

    def __iter__(self) -> Iterator[StepBatch]:
        current = self._open(self.start)
        pace = _Pace()
        for step in range(self.start, self.stop):
            if step == current.segment.stop:
                assert self._next is not None, "the next segment opens before this one ends"
                current, self._next = self._next, None
                pace = _Pace()
            middle = (current.segment.start + current.segment.stop) // 2
            if step == middle and current.segment.stop < self.stop:
                step_seconds = collectives.broadcast(pace.step_seconds())
                self._next = self._open(current.segment.stop, step_seconds)
            began = time.perf_counter()
            blocks = [current.take() for _ in self.shape.rank_blocks(self.rank)]
            for number, block in zip(self.shape.rank_blocks(self.rank), blocks, strict=True):
                raise_if_storage_failed(_problems(block))
                check_block(block, self.shape.block_samples(step, number), self.clips, self.seeds)
            yield StepBatch(step, self._micro_batches(blocks), time.perf_counter() - began)
            pace.step()
            if step + 1 == current.segment.stop:
                current.finish()

    def _open(self, start: int, step_seconds: float | None = None) -> _Segment:
        segment = segment_after(start, self.stop, self.shape, self.segment_steps, step_seconds)
        ahead = _MICRO_BATCHES_AHEAD * self.shape.blocks_per_micro
        return _Segment(segment, self.open_segment(segment), ahead)

    def _micro_batches(self, blocks: list[Columns]) -> list[MicroBatch]:
        per_micro = self.shape.blocks_per_micro
        groups = [blocks[i : i + per_micro] for i in range(0, len(blocks), per_micro)]
        return [_join(group, self.shape.micro_batch) for group in groups]


class _Pace:
    """How long the steps of a segment take, its first one left out: clips come from afar."""

    def __init__(self) -> None:
        self._since = 0.0
        self._steps = -1

    def step(self) -> None:
        """A step is done."""
        self._steps += 1
        if self._steps == 0:
            self._since = time.perf_counter()

    def step_seconds(self) -> float | None:
        """Mean so far; None if nothing is known."""
        if self._steps < 1:
            return None
        return (time.perf_counter() - self._since) / self._steps


class _Segment:
    """An open segment whose blocks are fetched by a thread, a bounded number ahead."""

    def __init__(self, segment: Segment, blocks: Iterator[Columns], ahead: int) -> None:
        self.segment = segment
        self._blocks = blocks
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._pending: deque[Future[Columns | None]] = deque(
            self._thread.submit(next, blocks, None) for _ in range(ahead)
        )

    def take(self) -> Columns:
        """The next block; errors of the fetching thread are raised here."""
        self._pending.append(self._thread.submit(next, self._blocks, None))
        block = self._pending.popleft().result()
        if block is None:
            raise BrokenInvariantError(f"the stream of {self.segment} ended early")
        return block

    def finish(self) -> None:
        """Make sure that nothing is left over."""
        left = [future.result() for future in self._pending]
        self._thread.shutdown(wait=False)
        if any(block is not None for block in left):
            raise BrokenInvariantError(f"the stream of {self.segment} holds more than planned")


def _join(blocks: list[Columns], size: int) -> MicroBatch:
    """Blocks of one micro-batch, copied once into one tensor; fillers are cut off."""
    filling = sum(len(b["s"]) for b in blocks) - size
    if filling:
        last = {name: column[:-filling] for name, column in blocks[-1].items()}
        blocks = [*blocks[:-1], last]
    samples = np.concatenate([b["s"] for b in blocks])
    first = blocks[0]["clip"]
    pixels = torch.empty(
        (len(samples), *first.shape[1:]), dtype=torch.uint8, pin_memory=torch.cuda.is_available()
    )
    np.concatenate([b["clip"] for b in blocks], out=pixels.numpy())
    real = samples != PADDING
    held = np.concatenate([b["held_frames"] for b in blocks])
    return MicroBatch(
        samples=samples,
        clip_ids=[str(i) for b in blocks for i in b["clip_id"]],
        weights=torch.from_numpy(np.concatenate([b["weight"] for b in blocks])),
        pixels=pixels,
        problems=[problem for b in blocks for problem in _problems(b)],
        num_held_frames=int(held[real].sum()),
    )


def _problems(block: Columns) -> list[Problem | None]:
    """The problems of a block's clips."""
    return [Problem.from_text(str(text)) for text in block["problem"]]
