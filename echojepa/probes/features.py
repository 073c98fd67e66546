"""Frozen features of videos: fixed clips of every one, encoded and pooled.

Shapes: B clips, W windows of a video, T frames, N tokens, D width. Tokens are in the order time,
row, column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from echojepa.config import Strict
from echojepa.data.decode.frames import ReadConfig, open_video
from echojepa.data.problem import Problem, guarded
from echojepa.data.sampling import ClipConfig, crop_resize, even_windows, square_box
from echojepa.encoders.frozen import EncoderSource, PooledFeatures, TokenFeatures

Part = Literal["mean", "motion", "texture"]


class FeatureConfig(Strict):
    """How a video becomes one vector of features."""

    windows: int = Field(2, gt=0)
    """Clips per video, evenly placed from its start to its end; features are their mean."""
    parts: tuple[Part, ...] = Field(("mean", "motion", "texture"), min_length=1)
    """What is kept of a clip's tokens, side by side: mean is over all of them; motion is the
    deviation over time at each place, averaged over places; texture the deviation over places at
    each time, averaged over times."""
    frame: Literal["square", "letterbox"] = "square"
    """The central square of a frame; or all of it, with black bars."""


def load_clips(
    row: dict[str, Any], clip: ClipConfig, how: FeatureConfig, read: ReadConfig
) -> NDArray[np.uint8]:
    """The clips of a manifest row, [W, T, H, W, 3].

    Raises:
        ClipError: the video cannot be read.
        StorageError: its storage fails.
    """
    windows = even_windows(row, clip, how.windows)
    moments = np.concatenate([window.seconds for window in windows])
    order = np.argsort(moments, kind="stable")  # a decoder reads a file from front to back once
    frames = open_video(row["uri"], read).frames_at(moments[order], row["num_frames"])
    height, width = frames.shape[1:3]
    if how.frame == "letterbox":
        side = max(height, width)
        bars = ((side - height) // 2, (side - width) // 2)
        rest = (side - height - bars[0], side - width - bars[1])
        frames = np.pad(frames, ((0, 0), (bars[0], rest[0]), (bars[1], rest[1]), (0, 0)))
        height = width = side
    cut = crop_resize(frames, square_box(height, width), clip.size)
    found: NDArray[np.uint8] = np.empty((how.windows, clip.num_frames, *cut.shape[1:]), np.uint8)
    found.reshape(cut.shape)[order] = cut
    return found


def load_view(row: dict[str, Any], clip: ClipConfig, read: ReadConfig) -> NDArray[np.uint8]:
    """The clip in the middle of a video, its central square, [T, H, W, 3]; see `load_clips`."""
    (view,) = load_clips(row, clip, FeatureConfig(windows=1), read)
    return np.asarray(view)


def pool(features: TokenFeatures | PooledFeatures, parts: Sequence[Part]) -> torch.Tensor:
    """Clip features, float32, [B, len(parts) D]; those that are pooled already stay as they are."""
    if isinstance(features, PooledFeatures):
        return features.values.float()
    tokens = features.tokens.float().unflatten(1, (features.grid.frames, -1))  # [B, times, places]
    found = {
        "mean": lambda: tokens.mean(dim=(1, 2)),
        "motion": lambda: tokens.std(dim=1, correction=0).mean(dim=1),
        "texture": lambda: tokens.std(dim=2, correction=0).mean(dim=1),
    }
    return torch.cat([found[part]() for part in parts], dim=1)


class FeatureExtractor:
    """Rows of a manifest to features of several encoders; a clip is decoded once for all of them
    that want the same frames."""

    def __init__(
        self, sources: Mapping[str, EncoderSource], how: FeatureConfig, read: ReadConfig
    ) -> None:
        self._encoders = {name: source.load() for name, source in sources.items()}
        self._how = how
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
            clips = views[encoder.clip]
            pooled = [
                pool(encoder.encode(clips[:, window]), self._how.parts)
                for window in range(self._how.windows)
            ]
            columns[name] = np.array(torch.stack(pooled).mean(dim=0).cpu().numpy(), np.float32)
            columns[name][bad] = np.nan
        return columns

    def _load_views(
        self, rows: list[dict[str, Any]], clip: ClipConfig, problems: list[Problem | None]
    ) -> NDArray[np.uint8]:
        """Clips [n, W, T, H, W, 3]; black where there is a problem, which is noted."""
        shape = (self._how.windows, clip.num_frames, clip.size, clip.size, 3)
        views = np.zeros((len(rows), *shape), np.uint8)
        for i, row in enumerate(rows):
            frames, problem = guarded(partial(load_clips, row, clip, self._how, self._read))
            if frames is not None:
                views[i] = frames
            problems[i] = problems[i] or problem
        return views
