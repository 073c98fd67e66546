"""An encoder with random weights, and its features of a phantom: something to evaluate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from echojepa.data.manifest.file import read_manifest, write_manifest
from echojepa.data.problem import Problem
from echojepa.evaluate import EvaluateConfig, Features, extractor, rows_to_encode
from echojepa.models.encoder import EncoderConfig, VideoEncoder
from echojepa.models.weights import save_encoder
from echojepa.probes.tasks import Task

TINY = EncoderConfig(width=48, depth=2, num_heads=4, patch_size=8)
CLIP = {"num_frames": 4, "fps": 10.0, "size": 48}
EF = Task(name="ef", label="lvef", kind="regression", unit="%")
VIEW = Task(name="view", label="view", kind="classification")


@dataclass(frozen=True)
class Bench:
    """An encoder, a manifest, and the features of its clips."""

    encoder: Path
    manifest: Path
    features: Features

    def config(self, out: Path, **changes: Any) -> EvaluateConfig:
        """An evaluation of both tasks."""
        settings = {"encoder": str(self.encoder), "manifest": str(self.manifest), "out": str(out)}
        return EvaluateConfig(**{**settings, "tasks": (EF, VIEW), **changes})


def features_of(config: EvaluateConfig) -> Features:
    """Features of every clip the evaluation uses, without a cluster."""
    columns = extractor(config)()(rows_to_encode(config).to_pylist())
    return Features(
        clip_ids=columns.pop("clip_id").tolist(),
        problems=[Problem.from_text(p) for p in columns.pop("problem")],
        by_encoder={name: values.astype(np.float64) for name, values in columns.items()},
    )


def build(manifest: Path, folder: Path) -> Bench:
    """Export an encoder into a folder, and compute its features."""
    torch.manual_seed(7)
    save_encoder(folder, TINY, VideoEncoder(TINY).state_dict(), CLIP, "# Tiny\n")
    config = Bench(folder, manifest, Features([], [], {})).config(folder.parent)
    return Bench(folder, manifest, features_of(config))


def changed_manifest(bench: Bench, path: Path, column: str, values: list[Any]) -> str:
    """The phantom's manifest with one column replaced."""
    table = read_manifest(bench.manifest)
    index = table.column_names.index(column)
    array = pa.array(values, table.schema.field(column).type)
    return str(write_manifest(table.set_column(index, column, array), path / "manifest.parquet"))


def unreadable(features: Features, clip_ids: set[str]) -> Features:
    """The same features, some clips of which could not be read."""
    bad = np.array([clip_id in clip_ids for clip_id in features.clip_ids])
    values = {n: np.where(bad[:, None], np.nan, v) for n, v in features.by_encoder.items()}
    missing = Problem("open", "missing", "no such file")
    problems = [missing if b else None for b in bad]
    return replace(features, problems=problems, by_encoder=values)
