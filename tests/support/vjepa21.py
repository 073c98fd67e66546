"""V-JEPA 2.1 by its description, on tensors under their published names: nothing of ours in it.

Written for comparison: token by token positions, one sine per layer, images and videos told apart
by an added embedding, four depths concatenated, predictor with two heads.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

Tensors = dict[str, torch.Tensor]
WIDTH, DEPTH, HEADS, PATCH = 48, 4, 4, 16
SMALL, SMALL_DEPTH, SMALL_HEADS = 24, 2, 2


def random_weights(*, levels: int, teacher: int | None = None) -> dict[str, Tensors]:
    """A checkpoint as V-JEPA 2.1's code writes it, with weights that matter everywhere.

    `teacher` is the width that a distilled model's predictor speaks.
    """
    encoder = {
        "patch_embed.proj.weight": torch.randn(WIDTH, 3, 2, PATCH, PATCH) * 0.05,
        "patch_embed.proj.bias": torch.randn(WIDTH) * 0.1,
        "patch_embed_img.proj.weight": torch.randn(WIDTH, 3, 1, PATCH, PATCH),
        "patch_embed_img.proj.bias": torch.randn(WIDTH),
        "img_mod_embed": torch.randn(1, 1, WIDTH),
        "video_mod_embed": torch.randn(1, 1, WIDTH),
    }
    for number in range(DEPTH):
        encoder |= _block(f"blocks.{number}.", WIDTH)
        encoder |= _norm(f"norms_block.{number}.", WIDTH)
    predictor = {f"mask_tokens.{i}": torch.randn(1, 1, SMALL) for i in range(3)}
    predictor["img_mod_embed"] = torch.randn(1, 1, SMALL)
    predictor["video_mod_embed"] = torch.randn(1, 1, SMALL)
    if levels > 1:
        predictor |= _linear("predictor_embed.0.", levels * WIDTH, WIDTH)
        predictor |= _linear("predictor_embed.2.", WIDTH, SMALL)
    else:
        predictor |= _linear("predictor_embed.", WIDTH, SMALL)
    for number in range(SMALL_DEPTH):
        predictor |= _block(f"predictor_blocks.{number}.", SMALL)
    predictor |= _norm("predictor_norm.", SMALL)
    for head in ("predictor_proj.", "predictor_proj_context."):
        predictor |= _linear(head, SMALL, teacher or levels * WIDTH)
    return {"encoder": encoder, "predictor": predictor}


def encode(weights: Tensors, clip: torch.Tensor, keep: torch.Tensor, levels: int) -> torch.Tensor:
    """Features of kept tokens [1, K] of a clip [1, 3, T, H, W] at the last `levels` depths."""
    x = F.conv3d(
        clip,
        weights["patch_embed.proj.weight"],
        weights["patch_embed.proj.bias"],
        stride=(2, PATCH, PATCH),
    )
    rows, columns = x.shape[-2:]
    x = x.flatten(2).transpose(1, 2) + weights["video_mod_embed"]
    x = x[:, keep[0]]
    positions = []
    for token in keep[0].tolist():
        cell = token % (rows * columns)
        row, column = cell // columns, cell % columns
        time = token // (rows * columns)
        positions.append((time, row * 15 / (rows - 1), column * 15 / (columns - 1)))
    found = []
    for number in range(DEPTH):
        x = _apply(weights, f"blocks.{number}.", x, positions, HEADS)
        found.append(_normed(weights, f"norms_block.{number}.", x))
    return torch.cat(found[DEPTH - levels :], dim=-1)


def predict(
    weights: Tensors,
    context: torch.Tensor,
    keep: torch.Tensor,
    hidden: torch.Tensor,
    grid: tuple[int, int, int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of hidden and of kept tokens, from those of the kept ones."""
    if "predictor_embed.0.weight" in weights:
        context = _affine(
            weights, "predictor_embed.2.", F.gelu(_affine(weights, "predictor_embed.0.", context))
        )
    else:
        context = _affine(weights, "predictor_embed.", context)
    x = torch.cat([context, weights["mask_tokens.0"].repeat(1, hidden.shape[1], 1)], dim=1)
    x = x + weights["video_mod_embed"]
    cells = grid[1] * grid[2]
    positions = [
        (token // cells, token % cells // grid[2], token % cells % grid[2])
        for token in [*keep[0].tolist(), *hidden[0].tolist()]
    ]
    for number in range(SMALL_DEPTH):
        x = _apply(weights, f"predictor_blocks.{number}.", x, positions, SMALL_HEADS)
    x = _normed(weights, "predictor_norm.", x)
    visible, asked = x[:, : keep.shape[1]], x[:, keep.shape[1] :]
    return (
        _affine(weights, "predictor_proj.", asked),
        _affine(weights, "predictor_proj_context.", visible),
    )


def _turned(vector: torch.Tensor, where: tuple[float, float, float]) -> torch.Tensor:
    """One query or key [E]: pairs of neighbours turned by a common angle, axis after axis."""
    turned = vector.clone()
    axis = 2 * (len(vector) // 3 // 2)
    for number, position in enumerate(where):
        for pair in range(axis // 2):
            angle = position / 10_000 ** (2 * pair / axis)
            one = number * axis + 2 * pair
            x, y = vector[one], vector[one + 1]
            turned[one] = x * math.cos(angle) - y * math.sin(angle)
            turned[one + 1] = y * math.cos(angle) + x * math.sin(angle)
    return turned


def _apply(
    weights: Tensors,
    prefix: str,
    x: torch.Tensor,
    positions: list[tuple[float, float, float]],
    heads: int,
) -> torch.Tensor:
    """One pre-norm block on one clip."""
    qkv = _affine(weights, f"{prefix}attn.qkv.", _normed(weights, f"{prefix}norm1.", x))[0]
    query, key, value = qkv.chunk(3, dim=-1)
    mixed = []
    for q, k, v in zip(*(part.chunk(heads, dim=-1) for part in (query, key, value)), strict=True):
        q, k = (
            torch.stack([_turned(t, p) for t, p in zip(part, positions, strict=True)])
            for part in (q, k)
        )
        mixed.append((q @ k.T / math.sqrt(q.shape[-1])).softmax(dim=-1) @ v)
    x = x + _affine(weights, f"{prefix}attn.proj.", torch.cat(mixed, dim=-1)[None])
    inner = _affine(weights, f"{prefix}mlp.fc1.", _normed(weights, f"{prefix}norm2.", x))
    return x + _affine(weights, f"{prefix}mlp.fc2.", F.gelu(inner))


def _affine(weights: Tensors, prefix: str, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, weights[f"{prefix}weight"], weights[f"{prefix}bias"])


def _normed(weights: Tensors, prefix: str, x: torch.Tensor) -> torch.Tensor:
    shape = (x.shape[-1],)
    return F.layer_norm(x, shape, weights[f"{prefix}weight"], weights[f"{prefix}bias"], 1e-6)


def _linear(prefix: str, inputs: int, outputs: int) -> Tensors:
    weight = torch.randn(outputs, inputs) / math.sqrt(inputs)
    return {f"{prefix}weight": weight, f"{prefix}bias": torch.randn(outputs) * 0.1}


def _norm(prefix: str, width: int) -> Tensors:
    weight = 1 + 0.1 * torch.randn(width)
    return {f"{prefix}weight": weight, f"{prefix}bias": 0.1 * torch.randn(width)}


def _block(prefix: str, width: int) -> Tensors:
    return {
        **_norm(f"{prefix}norm1.", width),
        **_linear(f"{prefix}attn.qkv.", width, 3 * width),
        **_linear(f"{prefix}attn.proj.", width, width),
        **_norm(f"{prefix}norm2.", width),
        **_linear(f"{prefix}mlp.fc1.", width, 4 * width),
        **_linear(f"{prefix}mlp.fc2.", 4 * width, width),
    }
