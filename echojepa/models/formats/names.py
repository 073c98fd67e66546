"""Names of V-JEPA 2 weights in the formats they are published in, and in ours.

    ours                        V-JEPA 2 / EchoJEPA .pt            Hugging Face
    patch_embed.proj            module.backbone.(the same)         encoder.embeddings.patch_...proj
    blocks.N.attn.qkv                                              ...attention.query / key / value
    mask_tokens.N  [1, 1, P]                                       mask_tokens  [tokens, 1, 1, P]

Ours are V-JEPA 2's without the wrappers' prefixes, so that names only lose or gain a prefix.
Renaming is exact in both directions: tensors are split, joined and stacked, never computed with.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch

Tensors = dict[str, torch.Tensor]

VJEPA_PREFIX = "module.backbone."
_WRAPPERS = ("module.", "backbone.", "encoder.")
_QKV = ("query", "key", "value")
_ENCODER = (
    ("patch_embed.proj.", "encoder.embeddings.patch_embeddings.proj."),
    ("norm.", "encoder.layernorm."),
)
_PREDICTOR = (
    ("predictor_embed.", "predictor.embeddings.predictor_embeddings."),
    ("predictor_norm.", "predictor.layernorm."),
    ("predictor_proj.", "predictor.proj."),
)
_BLOCK = re.compile(r"(?:predictor_)?blocks\.(\d+)\.(.+)")
_LAYER = re.compile(r"(encoder|predictor)\.layer\.(\d+)\.(.+)")
_MASK_TOKENS = "predictor.embeddings.mask_tokens"


def without_wrappers(tensors: Tensors) -> Tensors:
    """V-JEPA 2's names without what DDP and its own wrapper put before them."""
    return {_unwrapped(name): tensor for name, tensor in tensors.items()}


def to_huggingface(encoder: Tensors, predictor: Tensors) -> Tensors:
    """Our weights under the names of `transformers.VJEPA2Model`."""
    found: Tensors = {}
    for part, names, tensors in (
        ("encoder", _ENCODER, encoder),
        ("predictor", _PREDICTOR, predictor),
    ):
        for name, tensor in tensors.items():
            block = _BLOCK.fullmatch(name)
            if block:
                found |= _layer(f"{part}.layer.{block[1]}.", block[2], tensor)
            elif not name.startswith("mask_tokens."):
                found[_renamed(name, names)] = tensor
    tokens = [predictor[f"mask_tokens.{i}"] for i in range(num_mask_tokens(predictor))]
    if tokens:
        found[_MASK_TOKENS] = torch.stack(tokens)
    return found


def from_huggingface(tensors: Tensors) -> tuple[Tensors, Tensors]:
    """The inverse of `to_huggingface`: encoder and predictor; other names are kept as they are."""
    parts: dict[str, Tensors] = {"encoder": {}, "predictor": {}}
    split: dict[str, dict[str, torch.Tensor]] = {}
    reverse = [(theirs, ours) for ours, theirs in _ENCODER + _PREDICTOR]
    for name, tensor in tensors.items():
        part = "predictor" if name.startswith("predictor.") else "encoder"
        layer = _LAYER.fullmatch(name)
        if name == _MASK_TOKENS:
            parts[part] |= {f"mask_tokens.{i}": token for i, token in enumerate(tensor)}
        elif layer is None:
            parts[part][_renamed(name, reverse)] = tensor
        else:
            blocks = "blocks" if part == "encoder" else "predictor_blocks"
            rest = layer[3].replace("attention.proj.", "attn.proj.")
            role = re.fullmatch(r"attention\.(query|key|value)\.(weight|bias)", rest)
            if role is None:
                parts[part][f"{blocks}.{layer[2]}.{rest}"] = tensor
            else:
                key = f"{part} {blocks}.{layer[2]}.attn.qkv.{role[2]}"
                split.setdefault(key, {})[role[1]] = tensor
    for key, roles in split.items():
        part, name = key.split()
        if set(roles) == set(_QKV) and len({part.shape for part in roles.values()}) == 1:
            parts[part][name] = torch.cat([roles[role] for role in _QKV])
        else:
            parts[part] |= {f"{name}.{role}": tensor for role, tensor in roles.items()}
    return parts["encoder"], parts["predictor"]


def _unwrapped(name: str) -> str:
    while True:
        prefix = next((p for p in _WRAPPERS if name.startswith(p)), None)
        if prefix is None:
            return name
        name = name.removeprefix(prefix)


def _layer(prefix: str, rest: str, tensor: torch.Tensor) -> Tensors:
    """One tensor of a block under its names in a Hugging Face layer."""
    if rest.startswith("attn.qkv."):
        kind = rest.removeprefix("attn.qkv.")
        parts = tensor.chunk(3)
        return {
            f"{prefix}attention.{role}.{kind}": part.contiguous()
            for role, part in zip(_QKV, parts, strict=True)
        }
    return {prefix + rest.replace("attn.proj.", "attention.proj."): tensor}


def _renamed(name: str, rules: Iterable[tuple[str, str]]) -> str:
    for prefix, replacement in rules:
        if name.startswith(prefix):
            return replacement + name.removeprefix(prefix)
    return name


def num_mask_tokens(predictor: Tensors) -> int:
    """Mask tokens among a predictor's tensors, in our names."""
    return sum(name.startswith("mask_tokens.") for name in predictor)
