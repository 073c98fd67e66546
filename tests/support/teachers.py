"""Finished encoders for students to learn from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from echojepa.models.encoder import EncoderConfig, VideoEncoder
from echojepa.models.weights import save_encoder

CLIP = {"num_frames": 4, "fps": 10.0, "size": 48}


def write_teacher(folder: Path, seed: int = 5, **sizes: Any) -> Path:
    """An encoder folder with random weights, wider and shallower than `support.tiny`'s model."""
    config = EncoderConfig(**{"width": 64, "depth": 1, "num_heads": 2, "patch_size": 8} | sizes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = VideoEncoder(config)
    return save_encoder(folder, config, encoder.state_dict(), CLIP, "# A teacher\n")
