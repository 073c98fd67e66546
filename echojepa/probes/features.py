"""Frozen features of clips: one fixed view of every video, encoded and pooled.

Shapes: B clips, T frames, N tokens, D width. Tokens are in the order time, row, column.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from echojepa.data.decode.frames import ReadConfig, open_video
from echojepa.data.problem import Problem, guarded
from echojepa.data.sampling import ClipConfig, centre_view, crop_resize
from echojepa.encoders.frozen import EncoderSource, PooledFeatures, TokenFeatures

Pooling = Literal["mean", "mean_std"]
"""mean: over all tokens, [D]. mean_std: that, and the deviation over time of the spatial mean,
[2 D]; motion is what the second half sees."""


def load_view(row: dict[str, Any], clip: ClipConfig, read: ReadConfig) -> NDArray[np.uint8]:
    """The evaluation view of a manifest row: middle window, central square, [T, H, W, 3].

    Raises:
        ClipError: the video cannot be read.
        StorageError: its storage fails.
    """
    window, box = centre_view(row, clip)
    frames = open_video(row["uri"], read).frames_at(window.seconds, row["num_frames"])
    return crop_resize(frames, box, clip.size)


def pool(features: TokenFeatures | PooledFeatures, pooling: Pooling) -> torch.Tensor:
    """Clip features, float32: [B, D] or [B, 2 D] of tokens; pooled ones stay as they are."""
    if isinstance(features, PooledFeatures):
        return features.values.float()
    tokens = features.tokens.float()
    mean = tokens.mean(dim=1)
    if pooling == "mean":
        return mean
    over_time = tokens.unflatten(1, (features.grid.frames, -1)).mean(dim=2)  # [B, times, D]
    return torch.cat([mean, over_time.std(dim=1, correction=0)], dim=1)


class FeatureExtractor:
    """Rows of a manifest to features of several encoders; a clip is decoded once for all of them
    that want the same frames."""

    def __init__(
        self, sources: Mapping[str, EncoderSource], pooling: Pooling, read: ReadConfig
    ) -> None:
        self._encoders = {name: source.load() for name, source in sources.items()}
        self._pooling: Pooling = pooling
        self._read = read

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Columns clip_id, problem (see `Problem.to_text`) and one of [n, D] per encoder.

        A clip that cannot be read keeps its row, with NaN features.
        """
        problems: list[Problem | None] = [None] * len(rows)
        views = {
            clip: self._load_views(rows, clip, problems)
            for clip in {encoder.clip for encoder in self._encoders.values()}
        }
        bad = np.array([problem is not None for problem in problems])
        columns: dict[str, Any] = {
            "clip_id": np.array([row["clip_id"] for row in rows], dtype=object),
            "problem": np.array([p.to_text() if p else "" for p in problems], dtype=object),
        }
        for name, encoder in self._encoders.items():
            pooled = pool(encoder.encode(views[encoder.clip]), self._pooling)
            columns[name] = np.array(pooled.cpu().numpy(), np.float32)
            columns[name][bad] = np.nan
        return columns

    def _load_views(
        self, rows: list[dict[str, Any]], clip: ClipConfig, problems: list[Problem | None]
    ) -> NDArray[np.uint8]:
        """Views [n, T, H, W, 3]; black where there is a problem, which is noted."""
        views = np.zeros((len(rows), clip.num_frames, clip.size, clip.size, 3), np.uint8)
        for i, row in enumerate(rows):
            frames, problem = guarded(partial(load_view, row, clip, self._read))
            if frames is not None:
                views[i] = frames
            problems[i] = problems[i] or problem
        return views
