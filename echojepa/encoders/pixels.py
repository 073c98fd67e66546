"""What the preprocessing of several encoders shares: resizing, and standardising by statistics."""

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


def standardised(
    clips: torch.Tensor, size: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> torch.Tensor:
    """Resized frames, less a mean and divided by a deviation.

    Args:
        clips: uint8, [B, T, H, W, 3].
        size: side in pixels.
        mean: of the channels, in 0 .. 255; never guessed from the clips.
        std: likewise.

    Returns:
        float32, [B, 3, T, size, size].
    """
    centre, spread = (torch.tensor(v, device=clips.device).view(3, 1, 1, 1) for v in (mean, std))
    return (resized(clips, size) - centre) / spread
