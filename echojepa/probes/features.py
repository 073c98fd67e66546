"""Frozen features of clips: one fixed view of every video, encoded and pooled.

Shapes: B clips, T frames, N tokens, D width. Tokens are in the order time, row, column.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from echojepa.data.augment import crop_resize
from echojepa.data.decode import read_frames
from echojepa.data.sampling import ClipConfig, centre_view
from echojepa.models.encoder import VideoEncoder
from echojepa.models.preprocess import normalise

Pooling = Literal["mean", "mean_std"]
"""mean: over all tokens, [D]. mean_std: that, and the deviation over time of the spatial mean,
[2 D]; motion is what the second half sees."""


def load_view(row: dict[str, Any], clip: ClipConfig) -> NDArray[np.uint8]:
    """The evaluation view of a manifest row: middle window, central square, [T, H, W, 3].

    Raises:
        ClipError: the video cannot be read.
    """
    window, box = centre_view(row, clip)
    frames = read_frames(row["uri"], window.indices, num_promised=row["num_frames"])
    return crop_resize(frames, box, clip.size)


def pool(tokens: torch.Tensor, num_times: int, pooling: Pooling) -> torch.Tensor:
    """Token features [B, N, D] to clip features [B, D] or [B, 2 D], float32."""
    tokens = tokens.float()
    mean = tokens.mean(dim=1)
    if pooling == "mean":
        return mean
    over_time = tokens.unflatten(1, (num_times, -1)).mean(dim=2)  # [B, times, D]
    return torch.cat([mean, over_time.std(dim=1, correction=0)], dim=1)


@torch.inference_mode()
def encode(
    encoder: VideoEncoder, clips: NDArray[np.uint8], pooling: Pooling
) -> NDArray[np.float32]:
    """Pooled features of uint8 clips [B, T, H, W, 3]."""
    device = next(encoder.parameters()).device
    pixels = normalise(torch.from_numpy(clips).to(device), torch.float32)
    num_times = clips.shape[1] // encoder.config.tubelet_size
    return np.asarray(pool(encoder(pixels), num_times, pooling).cpu().numpy())
