"""An encoder with random weights, and its features of a phantom: something to evaluate."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from support.here import Here

from echojepa.data.manifest.file import read_manifest, with_absolute_uris, write_manifest
from echojepa.encoders.ours import OurSource
from echojepa.evaluate import EvaluateConfig
from echojepa.models.encoder import EncoderConfig, VideoEncoder
from echojepa.models.weights import save_encoder
from echojepa.pictures.evaluation import PageConfig
from echojepa.probes.examples import Examples, Material
from echojepa.probes.fitting import ProbeResult, fit_baseline, fit_probe, judge
from echojepa.probes.linear import LinearConfig
from echojepa.probes.store import Features
from echojepa.probes.tasks import Labels, Task

TINY = EncoderConfig(width=48, depth=2, num_heads=4, patch_size=8)
CLIP = {"num_frames": 4, "fps": 10.0, "size": 48}
EF = Task(name="ef", label="lvef", kind="regression", unit="%")
VIEW = Task(name="view", label="view", kind="classification")
PLAIN = PageConfig(maps=False, predictions=0, attention=0)
"""Nothing plays, which would take seconds."""
PRETRAINED, RANDOM = "pretrained", "pretrained (random weights)"


@dataclass(frozen=True)
class Bench:
    """An encoder, a manifest, and what computes features of its clips."""

    encoder: Path
    manifest: Path
    here: Here = field(default_factory=Here)

    def config(self, out: Path, **changes: Any) -> EvaluateConfig:
        """An evaluation of both tasks."""
        encoders = {PRETRAINED: OurSource(path=str(self.encoder))}
        settings = {"encoders": encoders, "manifest": str(self.manifest), "out": str(out)}
        return EvaluateConfig(**{**settings, "tasks": (EF, VIEW), "page": PLAIN, **changes})


def build(manifest: Path, folder: Path) -> Bench:
    """Export an encoder into a folder."""
    torch.manual_seed(7)
    save_encoder(folder, TINY, VideoEncoder(TINY).state_dict(), CLIP, "# Tiny\n")
    return Bench(folder, manifest)


def changed_manifest(bench: Bench, path: Path, column: str, values: list[Any]) -> str:
    """The phantom's manifest with one column replaced."""
    table = with_absolute_uris(read_manifest(bench.manifest), bench.manifest.parent)
    index = table.column_names.index(column)
    array = pa.array(values, table.schema.field(column).type)
    return str(write_manifest(table.set_column(index, column, array), path / "manifest.parquet"))


def material_of(labels: Labels, features: NDArray[np.floating[Any]]) -> Material:
    """Examples of single clips with these features, [n, P]."""
    clips = np.array(labels.clip_ids, str).reshape(-1, 1)
    of_clips = Features(labels.clip_ids, [None] * len(clips), features[:, None])  # type: ignore[arg-type]
    return Material(Examples(np.arange(len(clips)), clips, ("",), labels), of_clips)


def linear_result(labels: Labels, name: str, features: NDArray[np.floating[Any]]) -> ProbeResult:
    """A linear probe, fitted and judged."""
    material = material_of(labels, features)
    return judge(name, fit_probe(LinearConfig(), material, labels), material, labels)


def baseline_result(labels: Labels) -> ProbeResult:
    """What predicting the mean is worth."""
    material = material_of(labels, np.zeros((len(labels.clip_ids), 1)))
    return judge("predict mean", fit_baseline(labels), material, labels)
