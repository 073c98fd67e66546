"""What the preprocessing of several encoders shares: frames of another size are resized."""

from __future__ import annotations

import torch
from einops import rearrange
from torch.nn import functional as F


def resized(clips: torch.Tensor, size: int) -> torch.Tensor:
    """Square frames for an encoder that takes one size only.

    Args:
        clips: uint8, [B, T, H, W, 3].
        size: side in pixels.

    Returns:
        float32 in 0 .. 255, [B, 3, T, size, size]; bilinear between the centres of pixels, without
        smoothing first, if the clips have another size.
    """
    frames = rearrange(clips, "b t h w c -> (b t) c h w").float()
    if frames.shape[2:] != (size, size):
        frames = F.interpolate(frames, (size, size), mode="bilinear", align_corners=False)
    return rearrange(frames, "(b t) c h w -> b c t h w", b=len(clips))
