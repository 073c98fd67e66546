"""The feed: whole micro-batches whatever the blocks, and segments that last."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from echojepa.data.block import BlockDecoder, Columns, DataConfig
from echojepa.data.stream import PADDING, Segment, StreamShape, segment_blocks
from echojepa.randomness import Seeds
from echojepa.train.feed import Feed

SEEDS = Seeds(4)


@pytest.fixture(scope="module")
def data(phantom_manifest: Path) -> DataConfig:
    """All clips of the phantom, small."""
    clip = {"num_frames": 2, "fps": 10.0, "size": 16}
    return DataConfig.model_validate(
        {"manifest": str(phantom_manifest), "where": {"split": None}, "clip": clip}
    )


def feed(data: DataConfig, shape: StreamShape, rank: int, last: int) -> tuple[Feed, list[Segment]]:
    """A feed of one rank without Ray, and the segments that it has opened."""
    decoder = BlockDecoder(data, SEEDS)
    opened: list[Segment] = []

    def open_segment(segment: Segment) -> Iterator[Columns]:
        opened.append(segment)
        for number, samples in enumerate(segment_blocks(segment, shape)):
            if number % shape.world_size == rank:
                yield decoder(samples)

    clips = data.clips()
    return Feed(open_segment, shape, rank, clips, SEEDS, start=0, stop=last), opened


def test_fillers_of_blocks_never_reach_a_forward_pass(data: DataConfig) -> None:
    """Micro-batches of 5 in blocks of 2: the sixth row is cut off; padding of the batch stays."""
    shape = StreamShape(18, world_size=2, micro_batch=5, accumulation=2, block_rows=2)
    seen: list[int] = []
    for rank in range(2):
        for batch in feed(data, shape, rank, 3)[0]:
            for micro in batch.micro_batches:
                assert micro.pixels.shape == (5, 2, 16, 16, 3)
                assert len(micro.clip_ids) == len(micro.weights) == len(micro.problems) == 5
                real = micro.samples != PADDING
                assert micro.weights.numpy().tolist() == real.tolist()
                for i in np.flatnonzero(real):
                    alone = BlockDecoder(data, SEEDS)(micro.samples[i : i + 1])
                    assert np.array_equal(micro.pixels[i].numpy(), alone["clip"][0])
                seen += micro.samples[real].tolist()
    assert sorted(seen) == list(range(3 * 18))


def test_the_second_segment_follows_the_pace(
    data: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is as long as nobody knows better; a pause before its first batch counts not."""
    monkeypatch.setattr("echojepa.data.stream.FIRST_SEGMENT_BLOCKS", 4)
    monkeypatch.setattr("echojepa.data.stream.LEAST_SEGMENT_STEPS", 4)
    monkeypatch.setattr("echojepa.data.stream.SEGMENT_SECONDS", 1.0)
    shape = StreamShape(1, world_size=1, micro_batch=1, accumulation=1, block_rows=1)
    made, opened = feed(data, shape, 0, 30)
    for step, _ in enumerate(made):
        time.sleep(0.5 if step == 0 else 0.1)
    assert opened[0] == Segment(0, 4)
    assert opened[1].start == 4
    assert 5 <= opened[1].stop - opened[1].start <= 10  # 1 s at 0.1 s a step, or a little less
