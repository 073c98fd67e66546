"""The Ray Data stream keeps every sample, once and in order, whichever worker is slow or dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pydicom.data
import pytest
from support.clips import probe

from echojepa.data.block import DataConfig, check_block
from echojepa.data.manifest.file import read_manifest, with_absolute_uris, write_manifest
from echojepa.data.sampling import ClipConfig
from echojepa.data.stream import Segment, StreamShape, stream_shape
from echojepa.on_ray.stream import blocks_of, open_stream
from echojepa.randomness import Seeds

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]
SEED = 11
REAL_CLIP = "pydicom-apical"


def data_config(manifest: Path, **clip: object) -> DataConfig:
    return DataConfig.model_validate(
        {
            "manifest": str(manifest),
            "where": {"split": None},
            "clip": {"num_frames": 4, "fps": 10.0, "size": 48, **clip},
            "cpus_per_decoder": 0.5,
        }
    )


def consume(
    data: DataConfig, shape: StreamShape, segment: Segment, delays: list[float]
) -> list[list[str]]:
    """Read a segment with one thread per rank, checking every block; returns the clip ids."""
    clips = data.clips()
    iterators = open_stream(data, Seeds(SEED), shape, segment, f"test-{os.getpid()}")
    seen: list[list[str]] = [[] for _ in delays]
    errors: list[BaseException] = []

    def read(rank: int) -> None:
        try:
            blocks = blocks_of(iterators[rank])
            for step in range(segment.start, segment.stop):
                for number in shape.rank_blocks(rank):
                    block = next(blocks)
                    check_block(block, shape.block_samples(step, number), clips, Seeds(SEED))
                    seen[rank] += [str(i) for i in block["clip_id"]]
                    time.sleep(delays[rank])
            assert next(blocks, None) is None
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=read, args=(rank,)) for rank in range(len(delays))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    return seen


def test_three_unequal_consumers_get_every_block_in_order(phantom_manifest: Path) -> None:
    data = data_config(phantom_manifest)
    shape = stream_shape(20, 4, 3, data.clip)
    seen = consume(data, shape, Segment(2, 14), [0.0, 0.05, 0.0])
    assert sum(len([i for i in ids if i]) for ids in seen) == 12 * 20


@pytest.mark.parametrize(("micro", "rows"), [(80, 10), (23, 12), (19, 19)])
def test_blocks_of_the_real_size_keep_their_order(
    phantom_manifest: Path, micro: int, rows: int
) -> None:
    """EchoJEPA-G: clips of 16 frames at 336 px; with fillers, and in blocks of almost 100 MiB."""
    data = data_config(phantom_manifest, num_frames=16, fps=24.0, size=336)
    shape = stream_shape(2 * micro, 80, 2, ClipConfig(num_frames=16, fps=24.0, size=336))
    assert (shape.micro_batch, shape.block_rows) == (micro, rows)
    seen = consume(data, shape, Segment(0, 2), [0.0, 0.1])
    for ids in seen:
        assert len([clip_id for clip_id in ids if clip_id]) == 2 * micro


def with_the_clip_of_pydicom(phantom: Path, folder: Path) -> Path:
    """The phantom's manifest and one more row: a real ultrasound clip that nobody here made."""
    dicom = pydicom.data.get_testdata_file("examples_ybr_color.dcm")
    assert isinstance(dicom, str)
    info = probe(dicom)
    table = with_absolute_uris(read_manifest(phantom), phantom.parent)
    row = dict.fromkeys(table.column_names) | {
        "clip_id": REAL_CLIP,
        "patient_id": "pydicom",
        "study_id": "pydicom",
        "uri": dicom,
        "num_frames": info.num_frames,
        "native_fps": info.native_fps,
        "height": info.height,
        "width": info.width,
        "doppler": "none",
    }
    rows = pa.Table.from_pylist([row], table.schema)
    return write_manifest(pa.concat_tables([table, rows]), folder / "manifest.parquet")


def test_a_real_dicom_clip_is_one_more_clip(phantom_manifest: Path, tmp_path: Path) -> None:
    data = data_config(with_the_clip_of_pydicom(phantom_manifest, tmp_path))
    num_clips = len(read_manifest(data.manifest))
    shape = stream_shape(num_clips, 5, 1, data.clip)
    (iterator,) = open_stream(data, Seeds(SEED), shape, Segment(0, 1), f"test-{os.getpid()}")
    found = [
        (pixels, weight)
        for block in blocks_of(iterator)
        for clip_id, pixels, weight in zip(
            block["clip_id"], block["clip"], block["weight"], strict=True
        )
        if clip_id == REAL_CLIP
    ]
    assert len(found) == 1, "an epoch holds every clip once"
    pixels, weight = found[0]
    assert weight == 1
    assert pixels.shape == (4, 48, 48, 3)
    assert pixels.std() > 20, "a heart, not a black square"
    assert np.abs(np.diff(pixels.astype(int), axis=0)).mean() > 0.5, "it beats"


def test_killed_decoders_lose_nothing(phantom_manifest: Path) -> None:
    data = data_config(phantom_manifest)
    shape = stream_shape(16, 8, 2, data.clip)
    killed: list[int] = []
    done = threading.Event()

    def kill() -> None:
        while not done.is_set() and len(killed) < 3:
            time.sleep(1.0)
            for process in psutil.process_iter(["cmdline", "pid"]):
                title = " ".join(process.info["cmdline"] or [])
                if "MapWorker" in title and "_DecodeActor" in title:
                    os.kill(process.info["pid"], signal.SIGKILL)
                    killed.append(process.info["pid"])
                    break

    killer = threading.Thread(target=kill)
    killer.start()
    seen = consume(data, shape, Segment(0, 60), [0.1, 0.1])
    done.set()
    killer.join()
    assert killed, "no decoder was killed: the test showed nothing"
    assert sum(map(len, seen)) == 60 * 16
