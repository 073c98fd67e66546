"""Manifests of many millions of generated rows, and what a command costs on them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from echojepa.data.manifest.schema import SCHEMA, SPLITS

_GROUP = 1 << 19
_CLIPS_PER_STUDY = 24
_VIEWS = ("A4C", "A2C", "PLAX", "PSAX-PM", "A3C", "SC4C", None)
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


def write_millions(path: Path, num_rows: int) -> None:
    """As an archive of that size would look: long URIs, hashes, a label on every tenth clip."""
    rng = np.random.default_rng(0)
    schema = pa.schema([*SCHEMA, pa.field("lvef", pa.float64())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, num_rows, _GROUP):
            writer.write_table(_rows(rng, np.arange(start, min(start + _GROUP, num_rows)), schema))


def _rows(rng: np.random.Generator, number: np.ndarray, schema: pa.Schema) -> pa.Table:
    n = len(number)
    study = number // _CLIPS_PER_STUDY
    patient = study // 2
    clip_id = _hexes(rng, n, 16)
    study_id = _named("study", study)
    num_frames = rng.integers(1, 180, n).astype(np.int32)
    fps = rng.choice([25.0, 30.0, 50.0, 47.3], n)
    file = pc.binary_join_element_wise(clip_id, "mp4", ".")
    bucket = pa.scalar("s3://echo-archive/site-03")
    columns = {
        "clip_id": clip_id,
        "patient_id": _named("patient", patient),
        "study_id": study_id,
        "uri": pc.binary_join_element_wise(bucket, study_id, file, "/"),
        "num_frames": num_frames,
        "native_fps": fps,
        "duration_seconds": num_frames / fps,
        "height": np.full(n, 600),
        "width": np.full(n, 800),
        "view": pa.array(_VIEWS).take(pa.array(rng.integers(0, len(_VIEWS), n))),
        "doppler": pa.array(["none"]).take(pa.array(np.zeros(n, int))),
        "split": pa.array(SPLITS).take(pa.array(np.clip(patient % 10 - 7, 0, 2))),
        "population": pa.array(["adult"]).take(pa.array(np.zeros(n, int))),
        "content_hash": pc.binary_join_element_wise("sha256", _hexes(rng, n, 64), ":"),
        "lvef": pa.array(rng.normal(55, 10, n), mask=rng.random(n) < 0.9),
    }
    arrays = [pa.array(columns[field.name]).cast(field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _named(prefix: str, numbers: np.ndarray) -> pa.Array:
    digits = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 9, "0")
    return pc.binary_join_element_wise(prefix, digits, "-")


def _hexes(rng: np.random.Generator, count: int, width: int) -> pa.Array:
    """Random names, [count]."""
    letters = _HEX[rng.integers(0, 16, (count, width), dtype=np.uint8)]
    offsets = np.arange(0, (count + 1) * width, width, dtype=np.int32)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(letters.ravel()))


def write_csv(manifest: Path, lines: Path, identities: Path) -> None:
    """The same clips as the reference lists them."""
    with lines.open("w") as listed, identities.open("w") as known:
        known.write("path,patient_id,study_id,view\n")
        for uri, patient, study, view in _cells(manifest):
            listed.write(f"{uri} 0\n")
            known.write(f"{uri},{patient},{study},{view or ''}\n")


def _cells(manifest: Path) -> Iterator[tuple[str, ...]]:
    columns = ["uri", "patient_id", "study_id", "view"]
    for batch in pq.ParquetFile(manifest).iter_batches(columns=columns):
        yield from zip(*(batch[name].to_pylist() for name in columns), strict=True)


class Cost(NamedTuple):
    """Of a command."""

    seconds: float
    peak_gb: float
    """Most resident memory of its processes together, mapped pages of files included."""
    output: str


def cost(commands: list[list[str]]) -> Cost:
    """Run commands side by side.

    Raises:
        subprocess.CalledProcessError: one failed.
    """
    began = time.monotonic()
    ones = [subprocess.Popen(c, stdout=subprocess.PIPE, text=True) for c in commands]
    peak = 0.0
    while any(one.poll() is None for one in ones):
        peak = max(peak, sum(map(_resident, (one.pid for one in ones))))
        time.sleep(0.02)
    seconds = time.monotonic() - began
    outputs = [one.communicate()[0] for one in ones]
    for one, command in zip(ones, commands, strict=True):
        if one.returncode:
            raise subprocess.CalledProcessError(one.returncode, command)
    return Cost(seconds, peak / 1e9, "".join(outputs))


def _resident(pid: int) -> float:
    """Bytes of a process and its children; 0 if it has gone."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    total = 0.0
    for member in family:
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total
