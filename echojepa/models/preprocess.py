"""What the encoders expect of pixels: the last step between the uint8 stream and the network."""

from __future__ import annotations

import torch

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""ImageNet statistics in RGB order, the ones V-JEPA 2 and EchoJEPA are trained with."""


def normalise(clips: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """uint8 clips [B, T, H, W, 3] to normalised [B, 3, T, H, W], on the clips' own device."""
    mean = torch.tensor(MEAN, device=clips.device) * 255
    std = torch.tensor(STD, device=clips.device) * 255
    return ((clips.float() - mean) / std).to(dtype).permute(0, 4, 1, 2, 3)
