"""Files of published weights, read into our names. Nothing in a file is ever executed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from echojepa.errors import CheckpointError
from echojepa.models.formats.dense import DenseNames, reads_levels
from echojepa.models.formats.files import read_content
from echojepa.models.formats.names import Tensors, from_huggingface, without_wrappers

_TARGETS = ("target_encoder", "ema_encoder")


@dataclass(frozen=True)
class Published:
    """The branches of a file, in our names; what it lacks is None."""

    online: Tensors | None
    target: Tensors | None
    predictor: Tensors | None
    heads: tuple[int | None, int | None] = (None, None)
    """Attention heads of encoder and predictor, where the file says."""
    size: int | None = None
    """Side of the clips in pixels, where the file says."""
    num_frames: int | None = None
    """Frames of the clips, where the file says."""
    dense: bool = False
    """It is a V-JEPA 2.1 file."""
    left_out: list[str] = field(default_factory=list)
    """Tensors that are known to be of no use here."""


def read_published(source: Path) -> Published:
    """Read a `.pt` or `.safetensors` file or a Hugging Face folder.

    `.pt` files are read with `weights_only=True`, which builds tensors and plain containers only.

    Raises:
        CheckpointError: it is missing or damaged, or holds something that only code could build.
    """
    if source.is_dir():
        return _read_huggingface(source)
    return _branches(read_content(source))


def _branches(content: dict[str, Any]) -> Published:
    """Sort a state dict: nested by branch, or the flat one of a single encoder."""
    named = ("encoder", "predictor", *_TARGETS)
    parts = {k: content[k] for k in named if isinstance(content.get(k), dict)}
    nested = {k: without_wrappers(part) for k, part in parts.items()}
    target = next((nested[key] for key in _TARGETS if key in nested), None)
    online = nested.get("encoder")
    if target is None and online is None:
        online = without_wrappers({k: v for k, v in content.items() if isinstance(v, torch.Tensor)})
    predictor = nested.get("predictor")
    if not DenseNames.recognises(target or online or {}):
        return Published(online, target, predictor)
    names, several = DenseNames(), reads_levels(predictor)
    if target is not None:
        target = names.encoder(target, "", all_levels=several)
    if online is not None:
        label = "" if target is None else "online: "
        online = names.encoder(online, label, all_levels=several)
    if predictor is not None:
        predictor = names.predictor(predictor)
    return Published(online, target, predictor, dense=True, left_out=names.left_out)


def _read_huggingface(folder: Path) -> Published:
    """A `transformers.VJEPA2Model` folder, in one file or sharded."""
    try:
        config = json.loads((folder / "config.json").read_text())
        if config.get("model_type") != "vjepa2":
            raise KeyError("model_type")
        index = folder / "model.safetensors.index.json"
        names = {"model.safetensors"}
        if index.is_file():
            names = set(json.loads(index.read_text())["weight_map"].values())
        tensors: Tensors = {}
        for name in sorted(names):
            tensors |= load_file(folder / name)
        heads = config["num_attention_heads"], config["pred_num_attention_heads"]
        size, num_frames = int(config["crop_size"]), int(config["frames_per_clip"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError, SafetensorError) as error:
        raise CheckpointError(
            f"not a whole Hugging Face V-JEPA 2 folder ({type(error).__name__})",
            "Name a folder with config.json of model_type vjepa2 and its model.safetensors.",
            str(folder),
        ) from None
    encoder, predictor = from_huggingface(tensors)
    return Published(encoder, None, predictor or None, heads, size, num_frames)
