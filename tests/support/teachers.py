"""Finished encoders, and a small student that learns from one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from support.masks import MASKS

from echojepa.models.encoder import EncoderConfig, VideoEncoder
from echojepa.models.predictor import PredictorConfig
from echojepa.models.weights import save_encoder
from echojepa.objectives.frozen_target import FrozenTarget, FrozenTargetConfig
from echojepa.objectives.objective import ModelConfig, Objective
from echojepa.randomness import Seeds

MODEL = ModelConfig(
    encoder=EncoderConfig(width=24, depth=2, num_heads=2, patch_size=8),
    predictor=PredictorConfig(width=12, depth=1, num_heads=2),
)
GRID = MODEL.encoder.grid(4, 48, 48)
CLIP = {"num_frames": 4, "fps": 10.0, "size": 48}


def write_teacher(folder: Path, seed: int = 5, **sizes: Any) -> Path:
    """An encoder folder with random weights, wider and shallower than `support.tiny`'s model."""
    config = EncoderConfig(**{"width": 64, "depth": 1, "num_heads": 2, "patch_size": 8} | sizes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = VideoEncoder(config)
    return save_encoder(folder, config, encoder.state_dict(), CLIP, "# A teacher\n")


def objective_of(folder: Path, model: ModelConfig = MODEL, **settings: Any) -> Objective:
    config = FrozenTargetConfig(masks=MASKS, target=str(folder), **settings).bound(model)
    return config.build(model, GRID, Seeds(0))


def module_of(objective: Objective) -> FrozenTarget:
    module = objective.module(torch.float32)
    objective.complete(module)
    assert isinstance(module, FrozenTarget)
    return module


def pixels_of(size: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (size, 4, 48, 48, 3), dtype=torch.uint8)
