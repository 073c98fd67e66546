"""A sample is a pure function of (seed, s), s being the global sample index 0, 1, 2, ...

(The seed may itself change at a stated s; see `Seeds`.)

Nothing here holds state: any worker, any number of workers and any restart compute the same clip,
window and crop for the same s, and the data cursor of a checkpoint is one integer.

    epoch = s // num_clips; the row inside an epoch is a keyed bijection (no memory per row);
    window and crop come from a counter-based generator keyed by (seed, s). A window is a row of
    moments, not of frame numbers: which frame a file shows then, its decoder knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from echojepa.config import Strict
from echojepa.errors import ClipError
from echojepa.randomness import Domain, Permutation, SampleRng, Seeds


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


class Timing(NamedTuple):
    """What a manifest row says of a video's time."""

    num_frames: int
    native_fps: float
    """Frames per second, on average."""
    duration_seconds: float
    """From the first frame to the last, and one mean frame."""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Timing:
        """Of a row of the clip table."""
        return cls(row["num_frames"], row["native_fps"], row["duration_seconds"])

    @property
    def last_seconds(self) -> float:
        """When the last frame is shown, after the first."""
        return self.duration_seconds - 1 / self.native_fps

    def latest_start(self, clip: ClipConfig) -> float:
        """Latest start in seconds at which the whole window lies inside the video, or 0."""
        return max(0.0, self.last_seconds - (clip.num_frames - 1) / clip.fps)


@dataclass(frozen=True)
class Window:
    """Which moments of a video make a clip; a decoder finds the frames nearest to them."""

    seconds: NDArray[np.float64]
    """Since the first frame, [T], evenly spaced."""
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


def window_at(start_seconds: float, timing: Timing, clip: ClipConfig) -> Window:
    """The moments start + k / fps, k = 0 .. T-1.

    Raises:
        ClipError: the clip's policy rejects a video that is too short or too slow.
    """
    fps = timing.native_fps
    if clip.fps > fps * (1 + 1e-6) and clip.above_native == "reject":
        raise ClipError("sample", "too_slow", f"{fps:.3g} fps, {clip.fps:.3g} are wanted")
    seconds = start_seconds + np.arange(clip.num_frames) / clip.fps
    # A moment is beyond the end from half a frame after the last one on. A still lasts no time at
    # all, whatever its nominal rate.
    beyond = seconds >= timing.last_seconds + 0.5 / fps
    if timing.num_frames == 1:
        beyond[1:] = True
    held = int(beyond.sum())
    if held and clip.short == "reject":
        what = f"{timing.num_frames} frames at {fps:.3g} fps"
        raise ClipError("sample", "too_short", what)
    return Window(seconds, held)


def crop_box(height: int, width: int, clip: ClipConfig, rng: SampleRng) -> Box:
    """Random resized crop; after ten draws that do not fit, the largest central crop that does."""
    # Area uniform, aspect log-uniform, as in torchvision's RandomResizedCrop; every try consumes
    # two numbers, a crop that fits two more, so the stream position depends on the draws alone.
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


def random_view(seeds: Seeds, s: int, row: dict[str, Any], clip: ClipConfig) -> tuple[Window, Box]:
    """Window and crop of sample s for a row of the clip table. See `window_at` for errors."""
    rng = SampleRng(seeds.at(s), Domain.CLIP, s)
    timing = Timing.of(row)
    window = window_at(rng.uniform(0.0, timing.latest_start(clip)), timing, clip)
    return window, crop_box(row["height"], row["width"], clip, rng)


def square_box(height: int, width: int) -> Box:
    """The largest central square: what evaluation looks at."""
    side = min(height, width)
    return Box((height - side) // 2, (width - side) // 2, side, side)


Placement = Literal["even", "partitions", "contiguous"]


def windows_of(
    row: Mapping[str, Any], clip: ClipConfig, count: int, placement: Placement = "even"
) -> list[Window]:
    """The windows that evaluation looks at.

    Args:
        placement: `even` puts them from the start of a video to its end, a single one in the
            middle; `partitions` one into the middle of each of so many equal parts; `contiguous`
            one behind the other from the first frame on.

    Raises:
        ClipError: see `window_at`.
    """
    timing = Timing.of(row)
    latest = timing.latest_start(clip)
    length = clip.num_frames / clip.fps
    if placement == "contiguous":
        starts = np.arange(count) * length
    elif placement == "partitions":
        middles = (np.arange(count) + 0.5) * timing.duration_seconds / count
        starts = np.clip(middles - length / 2, 0.0, latest)
    else:
        starts = np.linspace(0.0, latest, count) if count > 1 else np.array([0.5 * latest])
    return [window_at(float(start), timing, clip) for start in starts]


def crop_resize(frames: NDArray[np.uint8], box: Box, size: int) -> NDArray[np.uint8]:
    """One resized crop, straight to the target size in uint8.

    Args:
        frames: [T, H, W, 3].
    Returns:
        [T, size, size, 3]. Bilinear when enlarging, area-averaged when shrinking (no aliasing).
    """
    cropped = frames[:, box.top : box.top + box.height, box.left : box.left + box.width]
    if box.mirror:
        cropped = cropped[:, :, ::-1]
    shrinking = box.height > size or box.width > size
    how = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    out = np.empty((len(frames), size, size, 3), np.uint8)
    for source, target in zip(cropped, out, strict=True):
        cv2.resize(np.ascontiguousarray(source), (size, size), dst=target, interpolation=how)
    return out
