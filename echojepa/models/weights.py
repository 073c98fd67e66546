"""Encoders on disk: a folder with `model.safetensors`, `config.json` and a model card.

    encoder = load_encoder("runs/demo/encoder")      # VideoEncoder in eval mode, float32
    features = encoder(clip)                          # [B, 3, T, H, W] to [B, N, D]

Beside it may lie what pretraining can go on from: `predictor.safetensors`, and `online.safetensors`
where the online encoder differs from the exported one. Evaluation and pretraining meet here and
nowhere else.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from echojepa.config import to_tree, validate
from echojepa.errors import CheckpointError, ConfigError
from echojepa.models.encoder import EncoderConfig, VideoEncoder
from echojepa.models.predictor import PredictorConfig

_WEIGHTS = "model.safetensors"
_PREDICTOR = "predictor.safetensors"
_ONLINE = "online.safetensors"
_CONFIG = "config.json"
_CARD = "README.md"
_FORMAT = "echojepa-encoder"
_UMASK = os.umask(0)
os.umask(_UMASK)


@dataclass(frozen=True)
class Companions:
    """What pretraining needs beside the exported encoder."""

    config: PredictorConfig
    predictor: dict[str, torch.Tensor]
    online: dict[str, torch.Tensor] | None = None
    """The online encoder, where it is not the exported one."""


def is_encoder_folder(path: Path) -> bool:
    """Whether `path` is a folder that `save_encoder` wrote."""
    return (path / _WEIGHTS).is_file() and (path / _CONFIG).is_file()


def save_encoder(
    folder: Path,
    config: EncoderConfig,
    weights: dict[str, torch.Tensor],
    input_clip: dict[str, Any],
    card: str,
    companions: Companions | None = None,
) -> Path:
    """Write an encoder folder.

    Args:
        weights: state dict of a `VideoEncoder`.
        input_clip: what it was trained on (frames, rate, size), for users to repeat.
        card: text of the model card.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(weights, folder / _WEIGHTS, {"format": "pt"})
    content = {"format": _FORMAT, "encoder": to_tree(config), "clip": input_clip}
    if companions is not None:
        content["predictor"] = to_tree(companions.config)
        save_tensors(companions.predictor, folder / _PREDICTOR, {"format": "pt"})
        if companions.online is not None:
            save_tensors(companions.online, folder / _ONLINE, {"format": "pt"})
    (folder / _CONFIG).write_text(json.dumps(content, indent=1))
    (folder / _CARD).write_text(card)
    return folder


def save_tensors(tensors: dict[str, torch.Tensor], file: Path, metadata: dict[str, str]) -> None:
    """`safetensors.save_file` under this process's umask; by itself it makes files private."""
    save_file({name: t.contiguous() for name, t in tensors.items()}, file, metadata=metadata)
    file.chmod(0o666 & ~_UMASK)


def read_config(folder: Path) -> tuple[EncoderConfig, dict[str, Any]]:
    """Architecture and input clip of an encoder folder.

    Raises:
        CheckpointError: it is not one.
    """
    try:
        content = json.loads((folder / _CONFIG).read_text())
        if content["format"] != _FORMAT:
            raise KeyError(content["format"])
        return validate(content["encoder"], EncoderConfig, str(folder / _CONFIG)), content["clip"]
    except (OSError, ValueError, KeyError, TypeError, ConfigError):
        raise CheckpointError(
            "not an encoder folder",
            "Name a folder with model.safetensors and config.json.",
            str(folder),
        ) from None


def encoder_digest(folder: Path) -> str:
    """SHA-256 (hexadecimal) of what an encoder is: its config and its weights, not its card.

    Raises:
        CheckpointError: the folder is not an encoder, or cannot be read.
    """
    read_config(folder)
    digest = hashlib.sha256()
    try:
        for name in (_CONFIG, _WEIGHTS):
            with (folder / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise CheckpointError(
            f"{error.filename} cannot be read ({type(error).__name__})",
            "Export it again.",
            str(folder),
        ) from None
    return digest.hexdigest()


def load_encoder(path: str | Path) -> VideoEncoder:
    """Rebuild an exported encoder: eval mode, float32, no gradients wanted.

    Raises:
        CheckpointError: the folder is not an encoder, is damaged, or does not fit its own config.
    """
    folder = Path(path)
    config, _ = read_config(folder)
    with torch.device("meta"):  # no initial values: the file's tensors replace them
        encoder = VideoEncoder(config)
    fill(encoder, _read(folder, _WEIGHTS), folder, assign=True)
    return encoder.eval().requires_grad_(False)


def read_companions(folder: Path) -> Companions | None:
    """What an encoder folder holds beside the encoder, if it does.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        tree = json.loads((folder / _CONFIG).read_text()).get("predictor")
    except (OSError, ValueError):
        tree = None
    if tree is None:
        return None
    online = (folder / _ONLINE).is_file()
    return Companions(
        config=validate(tree, PredictorConfig, str(folder / _CONFIG)),
        predictor=_read(folder, _PREDICTOR),
        online=_read(folder, _ONLINE) if online else None,
    )


def load_encoder_weights(module: nn.Module, folder: Path) -> None:
    """Fill a `VideoEncoder` from an encoder folder, every tensor or none.

    Raises:
        CheckpointError: names the missing, unexpected and mis-shaped tensors.
    """
    fill(module, _read(folder, _WEIGHTS), folder)


def fill(
    module: nn.Module, found: dict[str, torch.Tensor], folder: Path, *, assign: bool = False
) -> None:
    """Fill a module, every tensor or none; `folder` is named in the error. Raises as above.

    With `assign` the tensors themselves become the module's, without a copy.
    """
    wanted = module.state_dict()
    missing = sorted(set(wanted) - set(found))
    unexpected = sorted(set(found) - set(wanted))
    shaped = sorted(n for n in set(wanted) & set(found) if wanted[n].shape != found[n].shape)
    if missing or unexpected or shaped:
        raise CheckpointError(
            "the weights are of another architecture: "
            f"missing {missing[:3]}, unexpected {unexpected[:3]}, other shape {shaped[:3]}",
            "Use the encoder config these weights were trained with.",
            str(folder),
        )
    module.load_state_dict(found, assign=assign)


def _read(folder: Path, name: str) -> dict[str, torch.Tensor]:
    try:
        found: dict[str, torch.Tensor] = load_file(folder / name)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{name} cannot be read ({type(error).__name__})", "Export it again.", str(folder)
        ) from None
    return found
