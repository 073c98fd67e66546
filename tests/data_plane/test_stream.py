"""Which sample sits in which block, what a decoded block holds, and how a wrong one is noticed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echojepa.config import validate
from echojepa.data.block import DataConfig
from echojepa.data.sampling import ClipConfig
from echojepa.data.stream import (
    FIRST_SEGMENT_BLOCKS,
    MAX_BLOCK_BYTES,
    PADDING,
    Segment,
    StreamShape,
    segment_after,
    segment_blocks,
    stream_shape,
)
from echojepa.errors import ConfigError

SMALL = ClipConfig(num_frames=4, fps=10.0, size=48)


def micro_batches(shape: StreamShape, step: int, rank: int) -> list[np.ndarray]:
    """The samples of each forward pass of a rank, [accumulation][micro_batch]."""
    blocks = [shape.block_samples(step, block) for block in shape.rank_blocks(rank)]
    assert all(block.shape == (shape.block_rows,) for block in blocks)
    starts = range(0, len(blocks), shape.blocks_per_micro)
    joined = [np.concatenate(blocks[i : i + shape.blocks_per_micro]) for i in starts]
    assert all((slots[shape.micro_batch :] == PADDING).all() for slots in joined)
    return [slots[: shape.micro_batch] for slots in joined]


@given(
    global_batch=st.integers(1, 300),
    max_micro=st.integers(1, 50),
    world_size=st.integers(1, 9),
    size=st.sampled_from([32, 224, 336, 1024]),
    step=st.integers(0, 10**7),
    origin=st.sampled_from([0, 1, 12_345]),
)
@settings(max_examples=150, deadline=None)
def test_every_sample_of_a_step_appears_once(
    global_batch: int, max_micro: int, world_size: int, size: int, step: int, origin: int
) -> None:
    clip = ClipConfig(num_frames=16, size=size)
    shape = stream_shape(global_batch, max_micro, world_size, clip, origin)
    assert (shape.global_batch, shape.world_size, shape.origin) == (
        global_batch,
        world_size,
        origin,
    )
    assert shape.micro_batch <= max_micro
    assert -shape.micro_batch % shape.block_rows < 0.05 * shape.micro_batch
    assert shape.block_rows == 1 or shape.block_rows * clip.num_bytes <= MAX_BLOCK_BYTES

    ranks = [micro_batches(shape, step, rank) for rank in range(world_size)]
    assert {len(passes) for passes in ranks} == {shape.accumulation}
    everything = []
    for passes in ranks:
        for samples in passes:
            assert samples.shape == (shape.micro_batch,)
            real = samples[samples != PADDING]
            assert np.array_equal(real, samples[: len(real)])  # padding comes last
            assert (np.diff(real) == 1).all()
            everything += real.tolist()
    first = origin + step * global_batch
    assert sorted(everything) == list(range(first, first + global_batch))
    slots = world_size * shape.accumulation * shape.micro_batch
    assert slots - global_batch < world_size * shape.accumulation  # padding is as little as can be
    assert shape.blocks_per_step == world_size * shape.accumulation * shape.blocks_per_micro
    assert shape.blocks_per_step % world_size == 0


@given(global_batch=st.integers(1, 300), max_micro=st.integers(1, 50), world=st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_as_few_forward_passes_as_memory_allows(
    global_batch: int, max_micro: int, world: int
) -> None:
    shape = stream_shape(global_batch, max_micro, world, ClipConfig())
    assert world * shape.accumulation * max_micro >= global_batch
    assert world * (shape.accumulation - 1) * max_micro < global_batch


@pytest.mark.parametrize("world", [1, 2, 3, 5, 8, 11])
@pytest.mark.parametrize("max_micro", [8, 12, 30])
def test_groups_of_clips_stay_together(world: int, max_micro: int) -> None:
    """In micro-batches of whole groups, and as few of these as memory allows."""
    shape = stream_shape(40, max_micro, world, SMALL, origin=7, group=8)
    assert shape.micro_batch % 8 == 0 and shape.micro_batch <= max_micro
    share = -(-5 // world)
    assert shape.accumulation == -(-share // (max_micro // 8))
    assert world * shape.accumulation * shape.micro_batch >= 40


def test_groups_that_memory_has_no_room_for_are_cut() -> None:
    assert stream_shape(40, 6, 2, SMALL, group=8) == stream_shape(40, 6, 2, SMALL)


def test_blocks_go_round_the_ranks() -> None:
    shape = StreamShape(24, world_size=3, micro_batch=4, accumulation=2, block_rows=2)
    assert shape.blocks_per_step == 12
    assert [list(shape.rank_blocks(rank)) for rank in range(3)] == [
        [0, 3, 6, 9],
        [1, 4, 7, 10],
        [2, 5, 8, 11],
    ]
    by_rank = [[m.tolist() for m in micro_batches(shape, 1, rank)] for rank in range(3)]
    assert by_rank == [
        [[24, 25, 26, 27], [36, 37, 38, 39]],
        [[28, 29, 30, 31], [40, 41, 42, 43]],
        [[32, 33, 34, 35], [44, 45, 46, 47]],
    ]


def test_padding_where_the_batch_does_not_divide() -> None:
    shape = stream_shape(5, 8, 4, SMALL)
    assert (shape.micro_batch, shape.accumulation) == (2, 1)
    by_rank = [micro_batches(shape, 3, rank)[0].tolist() for rank in range(4)]
    assert by_rank == [[15, 16], [17, 18], [19, PADDING], [PADDING, PADDING]]


def test_block_of_the_largest_model() -> None:
    """EchoJEPA-G: 16 frames of 336 px are 5.2 MiB, so 12 clips are 64 MiB; 10 divides 80."""
    clip = ClipConfig(num_frames=16, size=336)
    shape = stream_shape(80 * 32, 80, 32, clip)
    assert (shape.micro_batch, shape.accumulation, shape.block_rows) == (80, 1, 10)
    assert shape.block_rows * clip.num_bytes <= 64 * 2**20
    huge = ClipConfig(num_frames=64, size=1024)
    assert stream_shape(8, 8, 1, huge).block_rows == 1
    assert stream_shape(8, 8, 1, SMALL).block_rows == 8


def test_a_prime_micro_batch_is_cut_well() -> None:
    """ViT-L on 24 GPUs: 43 clips a worker travel as 22 and 21, not one by one."""
    shape = stream_shape(1024, 128, 24, ClipConfig())
    assert (shape.micro_batch, shape.block_rows, shape.blocks_per_micro) == (43, 22, 2)
    last = [shape.block_samples(5, block) for block in (24, 24 + 23)]  # of ranks 0 and 23
    assert last[0].tolist() == [*range(5 * 1024 + 22, 5 * 1024 + 43), PADDING]
    assert (last[1] == PADDING).sum() == 24 * 43 - 1024 + 1


def test_a_forked_run_counts_from_its_origin() -> None:
    shape = stream_shape(6, 3, 2, SMALL, origin=1000)
    assert [shape.block_samples(0, b).tolist() for b in range(2)] == [
        [1000, 1001, 1002],
        [1003, 1004, 1005],
    ]
    assert shape.block_samples(2, 0).tolist() == [1012, 1013, 1014]


@given(
    last=st.integers(1, 500),
    start=st.integers(0, 499),
    segment_steps=st.none() | st.integers(2, 200),
    global_batch=st.integers(1, 64),
    world=st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_segments_follow_each_other_without_gap(
    last: int, start: int, segment_steps: int | None, global_batch: int, world: int
) -> None:
    shape = stream_shape(global_batch, 4, world, SMALL)
    cursor, segments = min(start, last - 1), []
    first = cursor
    while cursor < last:
        segment = segment_after(cursor, last, shape, segment_steps)
        assert segment.start == cursor < segment.stop <= last
        segments.append(segment)
        cursor = segment.stop
    lengths = [segment.stop - segment.start for segment in segments]
    assert sum(lengths) == last - first
    if segment_steps:
        assert set(lengths[:-1]) <= {segment_steps}
    else:
        assert all(n * shape.blocks_per_step <= FIRST_SEGMENT_BLOCKS or n == 60 for n in lengths)


def test_default_segment_length() -> None:
    assert segment_after(0, 10**6, stream_shape(8, 8, 1, SMALL), None) == Segment(0, 4096)
    many = StreamShape(80_000, world_size=1, micro_batch=8, accumulation=10_000, block_rows=8)
    assert segment_after(7, 100, many, None) == Segment(7, 67)
    some = StreamShape(64, world_size=64, micro_batch=1, accumulation=1, block_rows=1)
    assert segment_after(0, 10**6, some, None, step_seconds=0.5) == Segment(0, 300)
    assert segment_after(0, 10**6, some, None, step_seconds=0.01) == Segment(0, 1024)  # 65,536
    assert segment_after(0, 10**6, some, None, step_seconds=100.0) == Segment(0, 64)


def test_segment_blocks_are_the_blocks_of_its_steps_in_order() -> None:
    shape = stream_shape(7, 2, 2, SMALL)
    blocks = [block.tolist() for block in segment_blocks(Segment(3, 6), shape)]
    assert len(blocks) == 3 * shape.blocks_per_step
    assert len(blocks) % shape.world_size == 0
    expected = [
        shape.block_samples(step, block).tolist()
        for step in (3, 4, 5)
        for block in range(shape.blocks_per_step)
    ]
    assert blocks == expected
    real = [s for block in blocks for s in block if s != PADDING]
    assert sorted(real) == list(range(21, 42))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({}, "key 'manifest' is missing"),
        ({"max_bad_fraction": 1.5}, "max_bad_fraction = 1.5"),
        ({"max_bad_fraction": -0.1}, "max_bad_fraction = -0.1"),
        ({"read": {"decoder": "ffmpeg"}}, "read.decoder = 'ffmpeg'"),
        ({"num_decoders": 0}, "num_decoders = 0"),
        ({"cpus_per_decoder": 0.0}, "cpus_per_decoder = 0.0"),
        ({"segment_steps": 1}, "segment_steps = 1"),
        ({"where": {"splits": "train"}}, "unknown key 'where.splits'.*where.split"),
    ],
    ids=str,
)
def test_bad_settings(tree: dict[str, Any], message: str) -> None:
    whole = {"manifest": "m.parquet", **tree} if tree else {}
    with pytest.raises(ConfigError, match=message):
        validate(whole, DataConfig, "here")
