"""A sample is a pure function of (seed, s), s being the global sample index 0, 1, 2, ...

(The seed may itself change at a stated s; see `Seeds`.)

Nothing here holds state: any worker, any number of workers and any restart compute the same clip,
window and crop for the same s, and the data cursor of a checkpoint is one integer.

    epoch = s // num_clips; the row inside an epoch is a keyed bijection (no memory per row);
    window and crop come from a counter-based generator keyed by (seed, s).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from echojepa.config import Strict
from echojepa.errors import ClipError

_ROUNDS = 6
_SEED_STEP = 0x9E3779B97F4A7C15
_MIX = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))


class Domain(IntEnum):
    """What a random stream is for, so that no two uses share numbers."""

    ORDER = 1
    CLIP = 2
    MASK = 3


@dataclass(frozen=True)
class Seeds:
    """The seed of a run, and the samples at which it was changed to lead out of a collapse.

    Windows, crops and masks follow a change at once. The order of an epoch is keyed by the seed at
    its first sample, so that no epoch is begun in one order and ended in another.
    """

    base: int
    changes: tuple[int, ...] = ()
    """Global sample indices from which on another seed holds, as often as it was changed."""

    def at(self, s: int) -> int:
        """The seed of sample s."""
        passed = sum(change <= s for change in self.changes)
        return (self.base + passed * _SEED_STEP) % 2**63


class SampleRng:
    """Counter-based random numbers of one sample, from raw Philox-4x64 output (Salmon et al. 2011).

    Only raw 64-bit output is used, whose stream NumPy guarantees for ever; the mapping to floats
    and integers is ours, so a sample does not change with the NumPy version.
    """

    def __init__(self, seed: int, domain: Domain, s: int) -> None:
        key = np.array([seed, int(domain)], np.uint64)  # a list turns to floats from 2^63 on
        self._bits = np.random.Philox(key=key, counter=[0, 0, 0, s])

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A float in [low, high)."""
        return low + (high - low) * ((int(self._bits.random_raw()) >> 11) * 2.0**-53)

    def integer(self, n: int) -> int:
        """An integer in [0, n); the bias of the 64-bit product is below n / 2^64."""
        return (int(self._bits.random_raw()) * n) >> 64

    def raw(self, n: int) -> NDArray[np.uint64]:
        """`n` independent 64-bit numbers."""
        return np.asarray(self._bits.random_raw(n), np.uint64)


class Permutation:
    """A keyed bijection of [0, n) in O(1) memory: a Feistel network with cycle walking.

    Black and Rogaway, "Ciphers with arbitrary finite domains" (2002). Vectorised over indices.
    """

    def __init__(self, n: int, seed: int, epoch: int) -> None:
        if n < 1:
            raise ValueError(f"a permutation of {n} elements does not exist")
        self.n = n
        self._half_bits = max(1, ((n - 1).bit_length() + 1) // 2)
        keys = SampleRng(seed, Domain.ORDER, epoch)
        self._keys = keys.raw(_ROUNDS)

    def __call__(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions [M] in [0, n) to elements [M] in [0, n)."""
        out = self._encrypt(index.astype(np.uint64))
        outside = out >= self.n
        while outside.any():
            out[outside] = self._encrypt(out[outside])
            outside = out >= self.n
        return out.astype(np.int64)

    def _encrypt(self, value: NDArray[np.uint64]) -> NDArray[np.uint64]:
        shift, mask = np.uint64(self._half_bits), np.uint64((1 << self._half_bits) - 1)
        left, right = value >> shift, value & mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right ^ key) & mask)
        return (left << shift) | right


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The 64-bit finaliser of MurmurHash3: every input bit moves every output bit."""
    for factor in _MIX:
        x = (x ^ (x >> np.uint64(33))) * factor
    return x ^ (x >> np.uint64(33))


def rows_of(s: NDArray[np.int64], num_clips: int, seeds: Seeds) -> NDArray[np.int64]:
    """Row of the clip table for each global sample index: [M] to [M]."""
    rows = np.empty_like(s)
    epochs = s // num_clips
    for epoch in np.unique(epochs):
        here = epochs == epoch
        seed = seeds.at(int(epoch) * num_clips)
        rows[here] = Permutation(num_clips, seed, int(epoch))(s[here] % num_clips)
    return rows


class ClipConfig(Strict):
    """How one training clip is cut out of a video, in time and in space."""

    num_frames: int = Field(16, gt=0)
    """Frames per clip (T)."""
    fps: float = Field(24.0, gt=0)
    """Frame rate of the clip; frames are resampled by time."""
    size: int = Field(224, gt=0)
    """Side of the square clip in pixels."""
    crop_scale: tuple[float, float] = (0.5, 1.0)
    """Area of the random crop as a share of the frame. The reference uses 0.5 to 1."""
    crop_aspect: tuple[float, float] = (0.9, 1.1)
    """Width over height of the random crop, drawn log-uniformly."""
    flip: bool = False
    """Mirror half of the clips left to right. Off: a mirrored heart is another anatomy."""
    above_native: Literal["repeat", "reject"] = "repeat"
    """A target rate above the native one repeats the nearest native frame, or rejects the clip."""
    short: Literal["hold", "reject"] = "hold"
    """A video shorter than the window holds its last frame, or is rejected. Stills are short."""

    @model_validator(mode="after")
    def _ordered(self) -> ClipConfig:
        for name, pair in (("crop_scale", self.crop_scale), ("crop_aspect", self.crop_aspect)):
            if not 0 < pair[0] <= pair[1]:
                raise ValueError(f"{name} {pair} is not 0 < low <= high")
        if self.crop_scale[1] > 1:
            raise ValueError(f"crop_scale {self.crop_scale} exceeds the whole frame")
        return self

    @property
    def num_bytes(self) -> int:
        """Bytes of one uint8 RGB clip."""
        return self.num_frames * self.size * self.size * 3


@dataclass(frozen=True)
class Window:
    """Which native frames make a clip."""

    indices: NDArray[np.int64]
    """Native frame index of each clip frame, [T], not decreasing."""
    max_time_error_seconds: float
    """Largest distance between a wanted time and the time of the native frame chosen for it."""
    held_frames: int
    """Clip frames beyond the end of the video, filled with its last frame."""


@dataclass(frozen=True)
class Box:
    """A crop in native pixels."""

    top: int
    left: int
    height: int
    width: int
    mirror: bool = False


def window_start_range(num_native: int, native_fps: float, clip: ClipConfig) -> float:
    """Latest start in seconds at which the whole window lies inside the video (0 if none does)."""
    return max(0.0, (num_native - 1) / native_fps - (clip.num_frames - 1) / clip.fps)


def window_at(start_seconds: float, num_native: int, native_fps: float, clip: ClipConfig) -> Window:
    """Frames nearest in time to start + k / fps, k = 0 .. T-1.

    Raises:
        ClipError: the clip's policy rejects a video that is too short or too slow.
    """
    if clip.fps > native_fps * (1 + 1e-6) and clip.above_native == "reject":
        raise ClipError("sample", "too_slow", f"{native_fps:.3g} fps, {clip.fps:.3g} are wanted")
    wanted = start_seconds + np.arange(clip.num_frames) / clip.fps
    nearest = np.floor(wanted * native_fps + 0.5).astype(np.int64)
    if num_native == 1:  # a still lasts no time at all, whatever its nominal rate
        nearest[1:] = np.maximum(nearest[1:], 1)
    held = int((nearest > num_native - 1).sum())
    if held and clip.short == "reject":
        raise ClipError("sample", "too_short", f"{num_native} frames at {native_fps:.3g} fps")
    indices = np.minimum(nearest, num_native - 1)
    inside = wanted[: clip.num_frames - held] - indices[: clip.num_frames - held] / native_fps
    error = float(np.abs(inside).max()) if len(inside) else 0.0
    return Window(indices, error, held)


def crop_box(height: int, width: int, clip: ClipConfig, rng: SampleRng) -> Box:
    """Random resized crop; after ten draws that do not fit, the largest central crop that does."""
    low, high = np.log(clip.crop_aspect)
    for _ in range(10):
        area = height * width * rng.uniform(*clip.crop_scale)
        aspect = float(np.exp(rng.uniform(low, high)))
        w, h = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            top, left = rng.integer(height - h + 1), rng.integer(width - w + 1)
            return Box(top, left, h, w, clip.flip and rng.uniform() < 0.5)
    aspect = float(np.clip(width / height, *clip.crop_aspect))
    w, h = min(width, round(height * aspect)), min(height, round(width / aspect))
    top, left = (height - h) // 2, (width - w) // 2
    return Box(top, left, h, w, clip.flip and rng.uniform() < 0.5)


def draw(seeds: Seeds, s: int, row: dict[str, Any], clip: ClipConfig) -> tuple[Window, Box]:
    """Window and crop of sample s for a row of the clip table. See `window_at` for errors."""
    rng = SampleRng(seeds.at(s), Domain.CLIP, s)
    start = rng.uniform(0.0, window_start_range(row["num_frames"], row["native_fps"], clip))
    window = window_at(start, row["num_frames"], row["native_fps"], clip)
    return window, crop_box(row["height"], row["width"], clip, rng)


def centre_view(row: dict[str, Any], clip: ClipConfig, part: float = 0.5) -> tuple[Window, Box]:
    """The deterministic window and full-height central crop used by evaluation.

    `part` places the window: 0 at the start of the video, 1 at its end.
    """
    start = part * window_start_range(row["num_frames"], row["native_fps"], clip)
    window = window_at(start, row["num_frames"], row["native_fps"], clip)
    side = min(row["height"], row["width"])
    box = Box((row["height"] - side) // 2, (row["width"] - side) // 2, side, side)
    return window, box
