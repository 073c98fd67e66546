"""From a checkpoint to an encoder that others can load, with a card that says what it is."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch

from echojepa.config import validate
from echojepa.data.manifest.patients import PatientDigests
from echojepa.errors import CheckpointError, StorageError
from echojepa.models.encoder import EncoderConfig
from echojepa.models.formats.export_weights import export_huggingface, export_vjepa2
from echojepa.models.predictor import PredictorConfig
from echojepa.models.weights import Companions, is_encoder_folder, save_encoder
from echojepa.objectives.objective import Facts
from echojepa.runs.checkpoint import read_state, resolve
from echojepa.runs.shards import ShardReader
from echojepa.train.engine import OptimizerConfig, at_batch

ExportFormat = Literal["safetensors", "huggingface", "vjepa2"]


def export_encoder(checkpoint: Path, out: Path, *, with_online: bool = False) -> Path:
    """Write the encoder of a checkpoint, and its predictor if it has one, as an encoder folder.

    Needs no process group: one process reads the shards of all ranks.

    Args:
        with_online: the online encoder too, so that nothing of the weights is left behind.

    Returns:
        `out`.

    Raises:
        CheckpointError: the checkpoint cannot be read.
    """
    state = read_state(checkpoint)
    facts, model = _facts(state, checkpoint), state["config"]["model"]
    encoder = validate(model["encoder"], EncoderConfig, str(checkpoint))
    companions = None
    with ShardReader(checkpoint) as reader:
        weights = _part(reader, facts["exported"])
        if facts["predictor"] is not None:
            predictor = validate(model["predictor"], PredictorConfig, str(checkpoint))
            has_online = with_online and facts["online"] != facts["exported"]
            online = _part(reader, facts["online"]) if has_online else None
            companions = Companions(predictor, _part(reader, facts["predictor"]), online)
    seen = PatientDigests.read(checkpoint)
    clip = {name: state["config"]["data"]["clip"][name] for name in ("num_frames", "fps", "size")}
    save_encoder(out, encoder, weights, clip, model_card(state, facts), companions)
    if seen is not None:
        seen.write(out)
    return out


def describe(facts: Facts) -> dict[str, Any]:
    """What a checkpoint says of its objective, so that an export needs no more than the file."""
    return {
        "exported": facts.exported,
        "online": facts.online,
        "predictor": facts.predictor,
        "averaged": bool(facts.averages),
        "card": dict(facts.card),
    }


def _facts(state: dict[str, Any], checkpoint: Path) -> dict[str, Any]:
    """What `describe` wrote into a checkpoint."""
    if "objective" not in state:
        raise CheckpointError(
            "an older version wrote the checkpoint, which does not say where its encoder is",
            "Resume the run with this version, which writes checkpoints that do.",
            str(checkpoint),
        )
    facts: dict[str, Any] = state["objective"]
    return facts


def export(source: Path, out: Path, format: ExportFormat) -> Path:
    """Write a run's newest checkpoint, a checkpoint or an encoder folder for others; returns `out`.

    Raises:
        CheckpointError: there is nothing valid to export, or it lacks what the format needs.
        StorageError: `out` cannot be written.
    """
    try:
        with TemporaryDirectory(prefix="echojepa-export-") as scratch:
            folder = source
            if not is_encoder_folder(source):
                folder = out if format == "safetensors" else Path(scratch)
                export_encoder(resolve(source), folder, with_online=format == "vjepa2")
            elif format == "safetensors":
                shutil.copytree(source, out)
            if format == "huggingface":
                export_huggingface(folder, out)
            elif format == "vjepa2":
                export_vjepa2(folder, out)
    except OSError as error:
        raise StorageError(
            f"the export cannot be written: {error.strerror}", "Choose another folder.", str(out)
        ) from None
    return out


def _part(reader: ShardReader, prefix: str) -> dict[str, torch.Tensor]:
    """All weights of one sub-module."""
    prefix = f"weight/{prefix}"
    return {k.removeprefix(prefix): reader.whole(k) for k in reader.shapes if k.startswith(prefix)}


def model_card(state: dict[str, Any], facts: dict[str, Any]) -> str:
    """Markdown: origin, recipe, use and limits. Holds no path and no identifier.

    Args:
        state: of the checkpoint.
        facts: what `describe` said of the objective.
    """
    config, loop = state["config"], state["loop"]
    encoder, clip = config["model"]["encoder"], config["data"]["clip"]
    optimizer = at_batch(
        validate(config["optimizer"], OptimizerConfig, "checkpoint"), config["loop"]["global_batch"]
    )
    lines = "\n".join(f"| {name} | {text} |" for name, text in facts["card"].items())
    averaged = facts.get("averaged", True)  # older checkpoints are all of averages
    momentum = f"| EMA momentum | {optimizer.momentum.peak:g} |\n" if averaged else ""
    versions = ", ".join(f"{name} {version}" for name, version in state["versions"].items())
    return f"""# Echocardiography video encoder

**Research use only. This is not a medical device.** It has not been evaluated for diagnosis,
triage or treatment of any patient.

| | |
|---|---|
| Architecture | video ViT, width {encoder["width"]}, depth {encoder["depth"]}, heads \
{encoder["num_heads"]}, patch {encoder["patch_size"]}, tubelet {encoder["tubelet_size"]} |
| Input | {clip["num_frames"]} frames at {clip["fps"]} fps, {clip["size"]} x {clip["size"]} px, \
RGB, ImageNet normalisation |
{lines}
| Steps | {loop["step"]} of {config["loop"]["num_steps"]}, {loop["num_applied"]} applied; \
{config["loop"]["global_batch"]} clips each |
| Samples | {loop["num_seen"]}, of which {loop["num_unread"]} could not be read |
| Learning rate | peak {optimizer.lr.peak:g}, {optimizer.lr.shape} |
{momentum}| Precision | {optimizer.precision} |
| Seed | {config["seed"]} |
| Data | manifest SHA-256 `{state["manifest_fingerprint"]}` |
| Config hash | `{state["config_hash"]}` |
| Source commit | `{state["git_commit"]}` |
| Versions | Python {state["python"]}, {versions} |

## Limits

- What the encoder knows is what its data showed: populations, views, vendors and frame rates that
  the manifest lacks are untested.
- Features are not calibrated and carry no uncertainty; a probe on top must be validated on
  patients of its own site before its numbers mean anything.
- Pixels are expected without burned-in text; de-identification is the user's duty.
"""
