"""The Ray Data stream: index blocks in, blocks of decoded clips out, block k to rank k mod n.

The only file that touches `ray.data`. What keeps every sample exactly once and in order: input
blocks are whole output blocks, `preserve_order` is on, blocks stay far below the size at which Ray
cuts them, and their number is a multiple of the number of consumers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray.data

from echojepa.data.stream import (
    BlockDecoder,
    Columns,
    DataConfig,
    Segment,
    StreamShape,
    segment_blocks,
)

_MAX_RESTARTS = 32
"""A decode actor is restarted this often, and a block retried; the crash journal makes progress."""


class _DecodeActor:
    """The stateful function of the decode pool."""

    def __init__(self, data: DataConfig, seed: int, journal: Path) -> None:
        self._decode = BlockDecoder(data, seed, journal)

    def __call__(self, batch: Columns) -> Columns:
        return self._decode(batch["s"])


def _bounded_restarts() -> dict[str, int]:
    return {"max_restarts": _MAX_RESTARTS, "max_task_retries": _MAX_RESTARTS}


def open_stream(
    data: DataConfig, seed: int, shape: StreamShape, segment: Segment, run_id: str
) -> list[Any]:
    """Build the pipeline of one segment.

    Returns:
        One picklable `ray.data.DataIterator` per rank. Nothing runs until all ranks iterate.
    """
    blocks = [pa.table({"s": pa.array(s)}) for s in segment_blocks(segment, shape)]
    dataset = ray.data.from_arrow(blocks)
    context = dataset.context
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    journal = Path(tempfile.gettempdir()) / "echojepa-journal" / run_id
    decoded = dataset.map_batches(
        _DecodeActor,
        fn_constructor_args=(data, seed, journal),
        batch_size=None,
        batch_format="numpy",
        zero_copy_batch=True,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=data.num_decoders),
        num_cpus=data.cpus_per_decoder,
        ray_remote_args_fn=_bounded_restarts,
    )
    iterators: list[Any] = decoded.streaming_split(shape.world_size, equal=True)
    return iterators


def blocks_of(iterator: Any) -> Iterator[Columns]:
    """Whole blocks in stream order, zero-copy and read-only where Ray allows it."""
    yield from iterator.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=2)
