"""Frozen features of clips: one fixed view of every video, encoded and pooled.

Shapes: B clips, T frames, N tokens, D width. Tokens are in the order time, row, column.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from echojepa.data.augment import crop_resize
from echojepa.data.decode.frames import attempt, read_frames
from echojepa.data.sampling import ClipConfig, centre_view
from echojepa.models.encoder import EncoderConfig, VideoEncoder
from echojepa.models.preprocess import normalise
from echojepa.models.weights import load_encoder

Pooling = Literal["mean", "mean_std"]
"""mean: over all tokens, [D]. mean_std: that, and the deviation over time of the spatial mean,
[2 D]; motion is what the second half sees."""


def load_view(row: dict[str, Any], clip: ClipConfig) -> NDArray[np.uint8]:
    """The evaluation view of a manifest row: middle window, central square, [T, H, W, 3].

    Raises:
        ClipError: the video cannot be read.
        StorageError: its storage fails.
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


@dataclass(frozen=True)
class EncoderSource:
    """Where an encoder comes from: an encoder folder, or a seed for a random one."""

    folder: str | None
    config: EncoderConfig
    seed: int = 0

    def build(self) -> VideoEncoder:
        """The encoder in eval mode on this process's device.

        Raises:
            CheckpointError: the folder is no encoder, or is damaged.
        """
        if self.folder is not None:
            encoder = load_encoder(self.folder)
        else:
            torch.manual_seed(self.seed)
            encoder = VideoEncoder(self.config).eval().requires_grad_(False)
        return encoder.cuda() if torch.cuda.is_available() else encoder


class FeatureExtractor:
    """Rows of a manifest to features of several encoders: decode once, encode with each."""

    def __init__(
        self, sources: dict[str, EncoderSource], clip: ClipConfig, pooling: Pooling
    ) -> None:
        self._encoders = {name: source.build() for name, source in sources.items()}
        self._clip = clip
        self._pooling: Pooling = pooling

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Columns clip_id, problem ("" or stage|kind|message) and one of [n, D] per encoder.

        A clip that cannot be read keeps its row, with NaN features.
        """
        clip = self._clip
        clips = np.zeros((len(rows), clip.num_frames, clip.size, clip.size, 3), np.uint8)
        problems = [""] * len(rows)
        for i, row in enumerate(rows):
            frames, problems[i] = attempt(partial(load_view, row, clip))
            if frames is not None:
                clips[i] = frames
        bad = np.array([bool(p) for p in problems])
        columns: dict[str, Any] = {
            "clip_id": np.array([row["clip_id"] for row in rows], dtype=object),
            "problem": np.array(problems, dtype=object),
        }
        for name, encoder in self._encoders.items():
            columns[name] = encode(encoder, clips, self._pooling)
            columns[name][bad] = np.nan
        return columns
