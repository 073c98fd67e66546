"""Frozen features of videos: fixed clips of every one, encoded and pooled.

Shapes: n videos, W windows of a video, T frames, B clips, N tokens, D width. Tokens are in the
order time, row, column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch.nn import functional as F

from echojepa.config import Strict
from echojepa.data.corrupt import Corruption, corrupted
from echojepa.data.decode.frames import ReadConfig, open_video
from echojepa.data.problem import Problem, guarded
from echojepa.data.sampling import ClipConfig, Placement, crop_resize, square_box, windows_of
from echojepa.encoders.frozen import EncoderSource, FrozenEncoder, PooledFeatures, TokenFeatures

Part = Literal["mean", "motion", "texture"]
Keep = Literal["pooled", "grid", "tokens"]


class FeatureConfig(Strict):
    """How a video becomes one vector of features."""

    windows: int = Field(2, gt=0)
    """Clips per video; features are their mean."""
    placement: Placement = "even"
    """Where they lie: `even` from the start of the video to its end; `partitions` in the middle of
    equal parts; `contiguous` one behind the other from the first frame on."""
    parts: tuple[Part, ...] = Field(("mean", "motion", "texture"), min_length=1)
    """What is kept of a clip's tokens, side by side: mean is over all of them; motion is the
    deviation over time at each place, averaged over places; texture the deviation over places at
    each time, averaged over times."""
    frame: Literal["square", "letterbox"] = "square"
    """The central square of a frame; or all of it, with black bars."""


class Worsening(Strict):
    """How videos are made worse before an encoder sees them."""

    corruption: Corruption
    """What is done to them."""
    reencode: bool
    """Whether they are encoded again afterwards."""


class TokenConfig(Strict):
    """What is kept of a clip beside its pooled features, for probes that look at tokens."""

    keep: Keep = "pooled"
    """Nothing more; the means of the cells of a grid; or every token."""
    grid: tuple[int, int, int] = (4, 4, 4)
    """Cells along time, rows and columns, where a grid is kept; at most as many as tokens."""


class Shape(NamedTuple):
    """What an encoder gives of a video."""

    windows: int
    pooled: int
    """Width of the pooled features."""
    tokens: int
    """Tokens kept of a window; 0 if none are."""
    width: int
    """Of a token."""

    @property
    def num_bytes(self) -> int:
        """On disk, of one video: pooled features in float32, tokens in bfloat16."""
        return self.windows * (4 * self.pooled + 2 * self.tokens * self.width)


def load_clips(
    row: dict[str, Any],
    clip: ClipConfig,
    how: FeatureConfig,
    read: ReadConfig,
    worsening: Worsening | None = None,
) -> NDArray[np.uint8]:
    """The clips of a manifest row, [W, T, H, W, 3].

    Raises:
        ClipError: the video cannot be read.
        StorageError: its storage fails.
    """
    windows = windows_of(row, clip, how.windows, how.placement)
    moments = np.concatenate([window.seconds for window in windows])
    order = np.argsort(moments, kind="stable")  # a decoder reads a file from front to back once
    video = open_video(row["uri"], read)
    if worsening is None:
        frames = video.frames_at(moments[order], row["num_frames"])
    else:
        # Of a whole video, so that every frame is what it is in any other clip of it.
        whole = video.frames(range(row["num_frames"]), row["num_frames"])
        worse, fps = worsening.corruption, row["native_fps"]
        whole = corrupted(whole, worse, row["clip_id"], fps, reencode=worsening.reencode)
        nearest = np.rint(moments[order] * fps).astype(int)
        frames = whole[np.minimum(nearest, len(whole) - 1)]
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


def kept_tokens(features: TokenFeatures | PooledFeatures, how: TokenConfig) -> torch.Tensor:
    """Tokens [B, K, D] that are kept of a clip; a clip that is pooled already is one token."""
    if isinstance(features, PooledFeatures):
        return features.values[:, None]
    if how.keep == "tokens":
        return features.tokens
    times, rows, columns = map(min, how.grid, features.grid)
    cells = features.tokens.transpose(1, 2).unflatten(2, features.grid)
    means = F.adaptive_avg_pool3d(cells.float(), (times, rows, columns))
    return means.flatten(2).transpose(1, 2)


class ClipLoader:
    """Rows of a manifest to their pixels."""

    def __init__(
        self,
        clip: ClipConfig,
        how: FeatureConfig,
        read: ReadConfig,
        worsening: Worsening | None = None,
    ) -> None:
        self._load = partial(load_clips, clip=clip, how=how, read=read, worsening=worsening)
        self._shape = (how.windows, clip.num_frames, clip.size, clip.size, 3)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Columns clip_id, problem (see `Problem.to_text`) and clips [n, W, T, H, W, 3].

        A video that cannot be read keeps its row: black, beside a problem.
        """
        problems: list[Problem | None] = [None] * len(rows)
        clips = np.zeros((len(rows), *self._shape), np.uint8)
        for i, row in enumerate(rows):
            frames, problems[i] = guarded(partial(self._load, row))
            if frames is not None:
                clips[i] = frames
        return {
            "clip_id": np.array([row["clip_id"] for row in rows], dtype=object),
            "problem": np.array([p.to_text() if p else "" for p in problems], dtype=object),
            "clips": clips,
        }


class FeatureExtractor:
    """Clips to features of several encoders that want the same ones."""

    def __init__(
        self, sources: Mapping[str, EncoderSource], how: FeatureConfig, tokens: TokenConfig
    ) -> None:
        self._encoders = {name: (source.load(), source.batch) for name, source in sources.items()}
        self._how = how
        self._tokens = tokens

    def __call__(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Columns of a `ClipLoader` to clip_id, problem and, of every encoder, `pooled:NAME`
        [n, W, P] float32 and `tokens:NAME` [n, W, K, D], the bits of bfloat16 as uint16.

        What could not be read has NaN in both.
        """
        bad = np.array([bool(problem) for problem in columns["problem"]])
        found = {name: columns[name] for name in ("clip_id", "problem")}
        for name, (encoder, batch) in self._encoders.items():
            pooled, tokens = self._encode(encoder, batch, columns["clips"])
            pooled[bad] = torch.nan
            found[f"pooled:{name}"] = pooled.numpy()
            if tokens is not None:
                tokens[bad] = torch.nan
                found[f"tokens:{name}"] = tokens.view(torch.uint16).numpy()
        return found

    def _encode(
        self, encoder: FrozenEncoder, batch: int, clips: NDArray[np.uint8]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Pooled features [n, W, P] and, if they are kept, tokens [n, W, K, D]."""
        flat = clips.reshape(-1, *clips.shape[2:])
        pooled, kept = [], []
        for start in range(0, len(flat), batch):
            features = encoder.encode(flat[start : start + batch])
            pooled.append(pool(features, self._how.parts).cpu())
            if self._tokens.keep != "pooled":
                kept.append(kept_tokens(features, self._tokens).to("cpu", torch.bfloat16))
        by_video = (len(clips), clips.shape[1])
        tokens = torch.cat(kept).unflatten(0, by_video) if kept else None
        return torch.cat(pooled).unflatten(0, by_video), tokens


def described(
    source: EncoderSource, how: FeatureConfig, tokens: TokenConfig
) -> tuple[ClipConfig, Shape]:
    """The clips that an encoder wants and what it gives, found out by showing it a black one.

    Raises:
        CheckpointError: it cannot be loaded.
    """
    encoder = source.load()
    clip = encoder.clip
    features = encoder.encode(np.zeros((1, clip.num_frames, clip.size, clip.size, 3), np.uint8))
    pooled = pool(features, how.parts).shape[1]
    if tokens.keep == "pooled":
        return clip, Shape(how.windows, pooled, 0, 0)
    kept = kept_tokens(features, tokens)
    return clip, Shape(how.windows, pooled, kept.shape[1], kept.shape[2])
