"""VideoMAE weights in, from the original files and from Hugging Face folders.

    here, as in the original's fine-tuned files    Hugging Face (all but fc_norm below `videomae.`)
    patch_embed.proj                               embeddings.patch_embeddings.projection
    blocks.N.norm1, norm2                          encoder.layer.N.layernorm_before, _after
    blocks.N.attn.q_bias, v_bias                   ...attention.attention.q_bias, v_bias
    blocks.N.attn.qkv.weight                       ...attention.attention.query, key, value.weight
    blocks.N.attn.proj                             ...attention.output.dense
    blocks.N.mlp.fc1, fc2                          ...intermediate.dense, output.dense
    norm, fc_norm                                  layernorm, fc_norm

Pretrained original files have `encoder.` before these names, and a decoder. No file holds the
position table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import PositiveFloat, PositiveInt

from echojepa.errors import CheckpointError
from echojepa.models.formats.files import FolderConfig, read_huggingface, read_tensors
from echojepa.models.formats.names import Tensors

Head = Literal["norm", "fc_norm", "none"]
"""What follows the blocks: a norm of every token, a norm of their mean, or nothing."""
_DECODER = re.compile(
    r"decoder\.((blocks|decoder_layers)\.\d+|norm|head)\..+|encoder_to_decoder\.weight|mask_token"
)
_CLASSIFIER = re.compile(r"(head|classifier)\.(weight|bias)")
_HUGGINGFACE = (
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("layernorm_before.", "norm1."),
    ("layernorm_after.", "norm2."),
    ("attention.attention.q_bias", "attn.q_bias"),
    ("attention.attention.v_bias", "attn.v_bias"),
    ("attention.attention.query.bias", "attn.q_bias"),  # as transformers 5 calls them in memory
    ("attention.attention.value.bias", "attn.v_bias"),
    ("attention.output.dense.", "attn.proj."),
    ("intermediate.dense.", "mlp.fc1."),
    ("output.dense.", "mlp.fc2."),
    ("layernorm.", "norm."),
)
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)")
_PROJECTION = re.compile(r"attention\.attention\.(query|key|value)\.weight")
_ROLES = ("query", "key", "value")


@dataclass(frozen=True)
class VideoMaeFile:
    """An encoder in the names above, and what is said of it beside the tensors."""

    tensors: Tensors
    head: Head
    num_frames: int = 16
    num_heads: int | None = None
    size: int | None = None
    """Side of the clips in pixels."""
    eps: float = 1e-6
    """Of the norms of tokens."""
    pooled_eps: float = 1e-6
    """Of the norm of their mean."""


class _Folder(FolderConfig):
    model = "VideoMAE"

    model_type: Literal["videomae"]
    hidden_act: Literal["gelu"]
    image_size: PositiveInt
    num_frames: PositiveInt
    num_attention_heads: PositiveInt
    layer_norm_eps: PositiveFloat
    use_mean_pooling: bool


def read_videomae(source: Path) -> VideoMaeFile:
    """Read the encoder of a `.pth` or `.safetensors` file, or of a Hugging Face folder.

    Decoder and classifier are left out, by their exact names; other names that are not the
    encoder's stay in, for who loads them to refuse.

    Raises:
        CheckpointError: it is missing, damaged or of another model, or holds more than tensors.
    """
    if source.is_dir():
        return _from_huggingface(source)
    tensors = read_tensors(source, "model", "module")
    if any(name.startswith("encoder.") for name in tensors):
        kept = {_below_encoder(n): t for n, t in _without(tensors, _DECODER).items()}
        return VideoMaeFile(kept, "norm")
    kept = _without(tensors, _CLASSIFIER)
    return VideoMaeFile(kept, "norm" if "norm.weight" in kept else "fc_norm")


def _below_encoder(name: str) -> str:
    """A name of a pretrained file without its prefix; no other name may pass for one."""
    inside = name.startswith("encoder.")
    return name.removeprefix("encoder.") if inside else f"{name} (not below encoder.)"


def _from_huggingface(folder: Path) -> VideoMaeFile:
    """VideoMAEModel, VideoMAEForPreTraining or VideoMAEForVideoClassification."""
    config, tensors = read_huggingface(folder, _Folder)
    classifies = any(_CLASSIFIER.fullmatch(name) for name in tensors)
    tensors = _without(_without(tensors, _DECODER), _CLASSIFIER)
    head: Head = "norm"
    if config.use_mean_pooling:
        head = "fc_norm" if classifies else "none"
    return VideoMaeFile(
        tensors=_renamed(tensors, folder),
        head=head,
        num_frames=config.num_frames,
        num_heads=config.num_attention_heads,
        size=config.image_size,
        eps=config.layer_norm_eps,
        pooled_eps=1e-5,  # fixed in transformers
    )


def _renamed(tensors: Tensors, folder: Path) -> Tensors:
    """Hugging Face's names turned into the original ones; unknown names stay as they are."""
    found: Tensors = {}
    projections: dict[str, Tensors] = {}
    for name, tensor in tensors.items():
        layer = _LAYER.fullmatch(name.removeprefix("videomae."))
        place, rest = (f"blocks.{layer[1]}.", layer[2]) if layer else ("", name)
        role = _PROJECTION.fullmatch(rest)
        if layer and role:
            projections.setdefault(f"{place}attn.qkv.weight", {})[role[1]] = tensor
            continue
        ours = place + _original(rest.removeprefix("videomae."))
        found[name if ours in found else ours] = tensor  # a second one of a name is left over
    for name, parts in projections.items():
        if set(parts) != set(_ROLES) or len({part.shape for part in parts.values()}) > 1:
            shapes = {role: tuple(parts[role].shape) for role in _ROLES if role in parts}
            raise CheckpointError(
                f"{name} is made of query, key and value of one shape; there are {shapes}",
                "Fetch the folder again.",
                str(folder),
            )
        found[name] = torch.cat([parts[role] for role in _ROLES])
    return found


def _original(name: str) -> str:
    for theirs, ours in _HUGGINGFACE:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _without(tensors: Tensors, pattern: re.Pattern[str]) -> Tensors:
    return {name: t for name, t in tensors.items() if not pattern.fullmatch(name)}
