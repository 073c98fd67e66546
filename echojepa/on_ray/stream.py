"""The Ray Data stream: index blocks in, blocks of decoded clips out, block k to rank k mod n.

The only file that touches `ray.data`. What keeps every sample exactly once and in order: input
blocks are whole output blocks, `preserve_order` is on, blocks stay far below the size at which Ray
cuts them, and their number is a multiple of the number of consumers.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import ray
import ray.data
from ray.util.annotations import RayDeprecationWarning

from echojepa.data.block import BlockDecoder, Columns, DataConfig
from echojepa.data.stream import Segment, StreamShape, segment_blocks
from echojepa.on_ray.internals import ExecutionCallback
from echojepa.on_ray.tasks import map_on_ray
from echojepa.randomness import Seeds

if TYPE_CHECKING:  # decode actors live here, and probes would bring PyTorch into each of them
    from echojepa.probes.extraction import Extractor, Loader

_MAX_RESTARTS = 32
"""A decode actor is restarted this often, and a block retried; the crash journal makes progress."""
_ROUND_SECONDS = 0.02


class _Pace(ExecutionCallback):  # type: ignore[misc]  # Ray has no types
    """A pause between two rounds of Ray Data's scheduler.

    While consumers are slower than decoders, which is how it should be, finished tasks wait to be
    read and the scheduler spins on them: without the pause it burns a core on the driver's node.
    """

    def on_execution_step(self, executor: Any) -> None:
        del executor
        time.sleep(_ROUND_SECONDS)


class _DecodeActor:
    """The stateful function of the decode pool."""

    def __init__(self, data: DataConfig, seeds: Seeds, run_id: str) -> None:
        journal = Path(tempfile.gettempdir()) / f"echojepa-journal-{os.getuid()}" / run_id
        self._decode = BlockDecoder(data, seeds, journal)

    def __call__(self, batch: Columns) -> Columns:
        return self._decode(batch["s"])


def _quieten(context: Any) -> None:
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.custom_execution_callback_classes = [_Pace]
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _bounded_restarts() -> dict[str, int]:
    return {"max_restarts": _MAX_RESTARTS, "max_task_retries": _MAX_RESTARTS}


def _map_on_actors(dataset: Any, actor: type, arguments: tuple[Any, ...], **settings: Any) -> Any:
    """`map_batches` over whole blocks with an actor class whose restarts are bounded."""
    with warnings.catch_warnings():
        # Ray 2.60 announces the end of `ray_remote_args_fn` and has no other bound for restarts.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        return dataset.map_batches(
            actor,
            fn_constructor_args=arguments,
            batch_size=None,
            ray_remote_args_fn=_bounded_restarts,
            **settings,
        )


def open_stream(
    data: DataConfig, seeds: Seeds, shape: StreamShape, segment: Segment, run_id: str
) -> list[Any]:
    """Build the pipeline of one segment.

    Args:
        run_id: of this start of the run; the crash journals of its decoders stand under it.

    Returns:
        One picklable `ray.data.DataIterator` per rank. Nothing runs until all ranks iterate.
    """
    blocks = [pa.table({"s": pa.array(s)}) for s in segment_blocks(segment, shape)]
    dataset = ray.data.from_arrow(blocks)
    dataset.context.execution_options.preserve_order = True
    _quieten(dataset.context)
    decoded = _map_on_actors(
        dataset,
        _DecodeActor,
        (data, seeds, run_id),
        batch_format="numpy",
        zero_copy_batch=True,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=data.num_decoders),
        num_cpus=data.cpus_per_decoder,
    )
    iterators: list[Any] = decoded.streaming_split(shape.world_size, equal=True)
    return iterators


def blocks_of(iterator: Any) -> Iterator[Columns]:
    """Whole blocks in stream order, zero-copy and read-only where Ray allows it."""
    yield from iterator.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=2)


class _EncodeActor:
    """Holds the encoders of one process; decodes, too, where nobody has done it before."""

    def __init__(self, load: Loader | None, build: Callable[[], Extractor]) -> None:
        self._load = load
        self._extract = build()

    def __call__(self, block: Any) -> Columns:
        clips = block if self._load is None else self._load(block.to_pylist())
        return self._extract(clips)


class ClusterExecutor:
    """Decodes and encodes on the connected cluster; see `probes.extraction.Executor`.

    Where there are GPUs, each of them has an encoding actor, and decoding is a stage of its own
    that takes as many CPUs as it needs. Without them, decoding and encoding wait for the same
    cores, and an actor does both.
    """

    def __init__(
        self, cpus_per_actor: float, stages: Literal["auto", "one", "two"] = "auto"
    ) -> None:
        """Keep the settings.

        Args:
            cpus_per_actor: CPUs that an encoding actor reserves.
            stages: "auto" as described.
        """
        self._cpus_per_actor = cpus_per_actor
        self._stages = stages

    def map(self, function: Callable[[Any], Any], inputs: Iterable[Any]) -> Iterator[Any]:
        """Results in order, one core each."""
        yield from map_on_ray(function, inputs)

    def extract(
        self, blocks: Sequence[pa.Table], load: Loader, build: Callable[[], Extractor]
    ) -> Iterator[Columns]:
        """Decode and encode blocks of rows; their columns in order."""
        has_gpus = ray.cluster_resources().get("GPU", 0) >= 1
        two = has_gpus if self._stages == "auto" else self._stages == "two"
        dataset = ray.data.from_arrow(list(blocks))
        dataset.context.execution_options.preserve_order = True
        _quieten(dataset.context)
        if two:
            dataset = dataset.map_batches(
                lambda rows: load(rows.to_pylist()),
                batch_size=None,
                batch_format="pyarrow",
                num_cpus=1,
            )
        encoded = _map_on_actors(
            dataset,
            _EncodeActor,
            (None if two else load, build),
            batch_format="numpy" if two else "pyarrow",
            compute=ray.data.ActorPoolStrategy(min_size=1),
            num_cpus=self._cpus_per_actor,
            num_gpus=1 if has_gpus else 0,
        )
        yield from encoded.iter_batches(batch_size=None, batch_format="numpy")
