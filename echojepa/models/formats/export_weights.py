"""Encoder folders out, for other software: Hugging Face, and V-JEPA 2's own `.pt`."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch

from echojepa.errors import CheckpointError
from echojepa.models.attention import RotaryConfig
from echojepa.models.encoder import EncoderConfig
from echojepa.models.formats.names import VJEPA_PREFIX, to_huggingface
from echojepa.models.predictor import PredictorConfig
from echojepa.models.weights import (
    Companions,
    load_encoder,
    read_companions,
    read_config,
    save_tensors,
)


def export_huggingface(folder: Path, out: Path) -> Path:
    """Write a folder that `transformers.VJEPA2Model.from_pretrained` loads; returns it.

    That model's predictor asks for mask token 1 where ours asks for token 0: of a predictor with
    one token both mean the same, of one with several (published weights have ten) they do not.

    Raises:
        CheckpointError: no encoder folder, a damaged one, one without a predictor, or one of the
            dense variant, which V-JEPA 2 has no names for.
    """
    config, clip = read_config(folder)
    encoder, companions = load_encoder(folder), _companions(folder, config)
    out.mkdir(parents=True, exist_ok=True)
    tensors = to_huggingface(encoder.state_dict(), companions.predictor)
    save_tensors(tensors, out / "model.safetensors", {"format": "pt"})
    content = _huggingface_config(config, companions.config, clip)
    (out / "config.json").write_text(json.dumps(content, indent=1))
    shutil.copy(folder / "README.md", out / "README.md")
    return out


def export_vjepa2(folder: Path, out: Path) -> Path:
    """Write a `.pt` file in V-JEPA 2's format; returns it.

    It holds `target_encoder`, `predictor`, and `encoder` (the online one; where the folder has none
    of its own, the same weights again).

    Raises:
        CheckpointError: as `export_huggingface`.
    """
    config, _ = read_config(folder)
    target, companions = load_encoder(folder).state_dict(), _companions(folder, config)
    parts = {
        "encoder": target if companions.online is None else companions.online,
        "predictor": companions.predictor,
        "target_encoder": target,
    }
    prefixed = {
        part: {VJEPA_PREFIX + name: tensor.clone() for name, tensor in tensors.items()}
        for part, tensors in parts.items()
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(prefixed, out)
    return out


def _companions(folder: Path, encoder: EncoderConfig) -> Companions:
    found = read_companions(folder)
    if found is None:
        raise CheckpointError(
            "the encoder folder holds no predictor, which this format needs",
            "Export from the run or checkpoint instead.",
            str(folder),
        )
    plain = RotaryConfig()
    rotaries = (encoder.rotary, found.config.rotary)
    if encoder.num_levels > 1 or found.config.context_head or rotaries != (plain, plain):
        raise CheckpointError(
            "V-JEPA 2's formats have no names for levels, a context head or other rotary positions",
            "Export as safetensors.",
            str(folder),
        )
    return found


def _huggingface_config(
    encoder: EncoderConfig, predictor: PredictorConfig, clip: dict[str, Any]
) -> dict[str, Any]:
    return {
        "architectures": ["VJEPA2Model"],
        "model_type": "vjepa2",
        "patch_size": encoder.patch_size,
        "tubelet_size": encoder.tubelet_size,
        "crop_size": clip["size"],
        "frames_per_clip": clip["num_frames"],
        "hidden_size": encoder.width,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.num_heads,
        "mlp_ratio": _truncatable(encoder.width, encoder.mlp_ratio),
        "pred_hidden_size": predictor.width,
        "pred_num_hidden_layers": predictor.depth,
        "pred_num_attention_heads": predictor.num_heads,
        "pred_mlp_ratio": _truncatable(predictor.width, predictor.mlp_ratio),
        "pred_num_mask_tokens": predictor.num_mask_tokens,
    }


def _truncatable(width: int, ratio: float) -> float:
    """A ratio whose product with the width truncates to what we round to."""
    hidden = round(width * ratio)
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)
