"""Pixels as networks of other people want them: resized to their size, by their statistics."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def prepare(
    clips: torch.Tensor, size: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> torch.Tensor:
    """uint8 RGB clips [B, T, H, W, 3] to float32 [B, 3, T, size, size], on their own device.

    Frames of another size are resized bilinearly, without antialiasing and without rounding back to
    whole numbers. The range of the pixels is 0 to 255 by definition, never guessed from the clips.

    Args:
        mean: per channel R, G, B, in units of 0 to 255; it is subtracted.
        std: likewise; the difference is divided by it.
    """
    frames = clips.flatten(0, 1).permute(0, 3, 1, 2).float()  # [B T, 3, H, W]
    if frames.shape[-2:] != (size, size):
        frames = F.interpolate(frames, (size, size), mode="bilinear", align_corners=False)
    centre, spread = (torch.tensor(v, device=clips.device).view(3, 1, 1) for v in (mean, std))
    frames = (frames - centre) / spread
    return frames.view(*clips.shape[:2], *frames.shape[1:]).transpose(1, 2)
