"""Files of published weights, read into our names. Nothing in a file is ever executed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import PositiveInt

from echojepa.errors import CheckpointError
from echojepa.models.formats.dense import DenseNames, reads_levels
from echojepa.models.formats.files import FolderConfig, read_content, read_huggingface
from echojepa.models.formats.names import Tensors, from_huggingface, without_wrappers

Branch = Literal["target", "online"]
"""Of the two encoders that pretraining keeps: the averaged one, or the one with gradients."""
_TARGETS = ("target_encoder", "ema_encoder")


class _VJepa2Folder(FolderConfig):
    model = "V-JEPA 2"

    model_type: Literal["vjepa2"]
    num_attention_heads: PositiveInt
    pred_num_attention_heads: PositiveInt
    crop_size: PositiveInt
    frames_per_clip: PositiveInt


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

    def encoder(self, branch: Branch, source: Path) -> Tensors:
        """The encoder of a branch; a file of a single branch gives the one it holds.

        Raises:
            CheckpointError: it holds none.
        """
        chosen = self.online if branch == "online" else self.target
        found = chosen or self.online or self.target
        if not found:
            raise CheckpointError("the file holds no encoder", "Name a V-JEPA 2 file.", str(source))
        return found


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
    config, tensors = read_huggingface(folder, _VJepa2Folder)
    encoder, predictor = from_huggingface(tensors)
    heads = config.num_attention_heads, config.pred_num_attention_heads
    size, num_frames = config.crop_size, config.frames_per_clip
    return Published(encoder, None, predictor or None, heads, size, num_frames)
