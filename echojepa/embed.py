"""Embeddings of videos and of studies by a frozen encoder, as Parquet.

OUT/
  clips.parquet      a line per clip: ids, problem, embedding (null where there is a problem)
  studies.parquet    a line per study: ids, number of clips, mean of their embeddings
  features/          the same and, if asked for, tokens; an interrupted call goes on from here
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from echojepa.data.manifest.file import check_manifest, read_ready
from echojepa.data.manifest.schema import STREAM_COLUMNS, ClipFilter
from echojepa.encoders.kinds import AnyEncoder
from echojepa.errors import ManifestError, StorageError
from echojepa.probes.extraction import Executor, ExtractConfig, extract
from echojepa.probes.store import FeatureStore
from echojepa.probes.tasks import require_one_patient_per_study

_IDS = ("patient_id", "study_id")


class EmbedConfig(ExtractConfig):
    """What to embed, and by what."""

    command = "embed"

    encoder: AnyEncoder
    """The frozen encoder."""
    manifest: str
    """Path of `manifest.parquet`."""
    out: str
    """Folder for embeddings."""
    where: ClipFilter = ClipFilter(split=None)
    """Which clips."""


def embed(config: EmbedConfig, executor: Executor) -> tuple[int, int]:
    """Write embeddings; returns how many clips there are, and how many could not be read.

    Raises:
        ManifestError: the manifest is bad, has no clip of the kind, or mixes up patients.
        CheckpointError: the encoder cannot be loaded.
        StorageError: embeddings would be too large, or cannot be written.
    """
    check_manifest(config.manifest)
    rows = read_ready(config.manifest, (*STREAM_COLUMNS, *_IDS), config.where.rows())
    if not len(rows):
        raise ManifestError("no clip is of the kind that `where` names", "Change it.", "where")
    require_one_patient_per_study(rows)
    out = Path(config.out)
    found = extract(rows, {"": config.encoder}, config, out / "features", executor)
    store = found.only()
    try:
        return _write(store, rows.sort_by("clip_id"), out)
    except OSError as error:
        raise StorageError(
            f"embeddings cannot be written: {error.strerror}", "Choose another `out`.", config.out
        ) from None


def _write(store: FeatureStore, rows: pa.Table, out: Path) -> tuple[int, int]:
    """Both files, from one shard at a time; of studies, the running sums are in memory."""
    ids = {name: rows[name].to_pylist() for name in ("clip_id", *_IDS)}
    studies: dict[str, _Study] = {}
    num_bad = width = 0
    writer: pq.ParquetWriter | None = None
    partial = out / ".clips.partial"
    for shard in range(store.num_shards):
        features = store.read([shard])
        vectors = features.pooled.mean(axis=1)
        width = vectors.shape[1]
        of_shard = store.rows_of(shard)
        problems = [None if p is None else str(p) for p in features.problems]
        table = pa.table(
            {
                **{name: values[of_shard.start : of_shard.stop] for name, values in ids.items()},
                "problem": pa.array(problems, pa.string()),  # a shard may have none
                "embedding": _lists(vectors, [p is None for p in features.problems]),
            }
        )
        writer = writer or pq.ParquetWriter(partial, table.schema)
        writer.write_table(table)
        for i, vector, problem in zip(of_shard, vectors, features.problems, strict=True):
            if problem is None:
                study = studies.setdefault(ids["study_id"][i], _Study(ids["patient_id"][i]))
                study.add(vector)
            num_bad += problem is not None
    if writer is not None:
        writer.close()
        partial.replace(out / "clips.parquet")
    _write_studies(studies, width, out / "studies.parquet")
    return len(rows), num_bad


class _Study:
    """The sum of the embeddings of a study's clips."""

    def __init__(self, patient: str) -> None:
        self.patient = patient
        self.num_clips = 0
        self.total: Any = 0.0

    def add(self, vector: NDArray[np.float32]) -> None:
        self.total = self.total + vector
        self.num_clips += 1


def _write_studies(studies: dict[str, _Study], width: int, file: Path) -> None:
    names = sorted(studies)
    found = [studies[name] for name in names]
    means = np.empty((len(found), width), np.float32)
    for i, study in enumerate(found):
        means[i] = study.total / study.num_clips
    columns = {
        "study_id": pa.array(names, pa.string()),
        "patient_id": pa.array([study.patient for study in found], pa.string()),
        "num_clips": pa.array([study.num_clips for study in found], pa.int64()),
        "embedding": _lists(means, [True] * len(found)),
    }
    partial = file.with_name(f".{file.name}.partial")
    pq.write_table(pa.table(columns), partial)
    partial.replace(file)


def _lists(vectors: NDArray[np.float32], there: list[bool]) -> pa.Array:
    """Rows [n, P] as a column of lists; null where they are not there."""
    mask = pa.array([not t for t in there], pa.bool_())
    flat = pa.array(vectors.ravel())
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1], mask=mask)
