"""Videos as worse machines and windows would show them: acoustic corruptions of known strength.

    corrupted(frames, DepthAttenuation(gamma=1.5), "clip 7", fps=50.0)     # uint8 [T, H, W, 3]

A corruption works on all frames of a whole video, before anything is cropped out of it, and on
every colour channel alike. It is a pure function of the frames, its settings and the clip's id.

Depth attenuation and Gaussian shadow are those of EchoJEPA's robustness test (arXiv 2602.02603), by
the formulas that its published code executes; its text states others. Below, I is a grey level from
0 to 255, x = 0 .. W-1 counts columns, y = 0 .. H-1 rows, and the probe is thought to be at the
middle of the upper edge, so that a pixel's distance from it is

    d = sqrt((x/W - 1/2)^2 + (y/H)^2).

Those two change the whole picture, as published, text and all. Haze and gain are kept inside of the
sector (see `sector`), outside of which a machine shows no echoes.

Everything is computed in float64, rounded half to even and clipped to 0 .. 255. The published test
encoded every video again after it had corrupted it; `Reencoded` is that step alone, the clean
control which corrupted videos are to be compared with.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from echojepa.config import Strict
from echojepa.data.decode import video
from echojepa.data.decode.source import Source
from echojepa.data.encode import VideoFormat, encode_video, with_even_sides
from echojepa.randomness import Domain, SampleRng

Frames = NDArray[np.uint8]
Floats = NDArray[np.float64]

_H264 = VideoFormat("mp4", "libx264", "yuv420p", {"crf": "18", "x264-params": "mbtree=0"})
"""Without its macroblock tree: with it, and with B-frames, x264 (core 165) writes other bytes on
every run, and their pictures differ nearly as much as a re-encoded one from its original."""
_HAZE_LEVELS = 0.5 * 255
_CENTRES = (0.2, 0.8)
_BLACK = 10
_STROKE = 5


class DepthAttenuation(Strict):
    """Echoes fade with depth: I' = I ((1 - a) exp(-gamma d) + a).

    Tupper and Gagné, "Revisiting data augmentation for ultrasound images" (arXiv 2501.13193).
    """

    kind: Literal["depth_attenuation"] = "depth_attenuation"
    gamma: float = Field(gt=0)
    """How fast; at d = 1/2, exp(-gamma/2) of a grey level is left."""
    floor: float = Field(0.0, ge=0, lt=1)
    """The share a that is left at any depth."""

    def applied(self, frames: Frames, clip_id: str) -> Frames:
        """Frames [T, H, W, 3], changed; whose clip it is makes no difference."""
        left = (1 - self.floor) * np.exp(-self.gamma * _distance(frames)) + self.floor
        return _each(frames, lambda frame, _: frame * left[..., None])


class GaussianShadow(Strict):
    """One dark spot: I' = I (1 - s exp(-(x - m_x)^2 / 2 s_x^2 - (y - m_y)^2 / 2 s_y^2)).

    Its centre m is drawn for each video, from 0.2 to 0.8 of the width and of the height; videos
    have the same one at every strength and size.
    """

    kind: Literal["gaussian_shadow"] = "gaussian_shadow"
    strength: float = Field(gt=0, le=1)
    """s: the share of a grey level that is lost at the centre."""
    sigma: float = Field(gt=0)
    """s_x as a share of the width, s_y as the same share of the height."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Of the centres."""

    def centre(self, clip_id: str) -> tuple[float, float]:
        """m_x as a share of the width and m_y of the height."""
        rng = _rng(self.seed, "shadow", clip_id)
        return rng.uniform(*_CENTRES), rng.uniform(*_CENTRES)

    def applied(self, frames: Frames, clip_id: str) -> Frames:
        """Frames [T, H, W, 3], changed."""
        x, y = _shares(frames)
        centre_x, centre_y = self.centre(clip_id)
        squared = (x - centre_x) ** 2 + (y - centre_y) ** 2
        left = 1 - self.strength * np.exp(-squared / (2 * self.sigma**2))
        return _each(frames, lambda frame, _: frame * left[..., None])


class Haze(Strict):
    """A band of static at one depth: I' = I + 255 u exp(-(d - R)^2 / 2 sigma^2) / 2.

    u, from 0 to 1, is drawn for every pixel of every frame. d is the distance of depth attenuation.
    Described after Østvik et al., "Myocardial function imaging in echocardiography using deep
    learning" (IEEE TMI 40:1340, 2021); in the published robustness test it did not run.
    """

    kind: Literal["haze"] = "haze"
    radius: float = Field(0.5, ge=0)
    """R: where the band is densest. 0.5 is half of the height, below the probe."""
    sigma: float = Field(gt=0)
    """Half of the band's breadth, in the same unit."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Of the static."""

    def applied(self, frames: Frames, clip_id: str) -> Frames:
        """Frames [T, H, W, 3], changed."""
        squared = (_distance(frames) - self.radius) ** 2
        band = _HAZE_LEVELS * np.exp(-squared / (2 * self.sigma**2)) * sector(frames)

        def hazy(frame: Frames, number: int) -> Floats:
            static = _rng(self.seed, f"haze {number}", clip_id).uniforms(band.size)
            return frame + (static.reshape(band.shape) * band)[..., None]

        return _each(frames, hazy)


class Gain(Strict):
    """The gain knob: I' = I + 255 G / D, for a gain of G dB and a dynamic range of D dB.

    A machine shows an echo of L dB, 0 being the strongest, as I = 255 (1 + L/D): log compression
    turns a factor into a sum. What is black is taken to lie at the lower end of the range, so that
    dark blood turns grey, as it does where noise is amplified.
    """

    kind: Literal["gain"] = "gain"
    decibels: float
    """G: above 0 the picture is brighter. 6 dB double an echo's amplitude."""
    dynamic_range: float = Field(60.0, gt=0)
    """D, in dB. A file doesn't say it; machines are mostly set between 50 and 70 for the heart."""

    def applied(self, frames: Frames, clip_id: str) -> Frames:
        """Frames [T, H, W, 3], changed; whose clip it is makes no difference."""
        added = 255 * self.decibels / self.dynamic_range * sector(frames)
        return _each(frames, lambda frame, _: frame + added[..., None])


class Reencoded(Strict):
    """Nothing but what every corrupted video goes through as well, where videos are re-encoded."""

    kind: Literal["reencoded"] = "reencoded"


Corruption = Annotated[
    DepthAttenuation | GaussianShadow | Haze | Gain | Reencoded, Field(discriminator="kind")
]
Preset = Literal["depth_attenuation", "gaussian_shadow", "haze", "overgain", "undergain"]
SEVERITIES: dict[Preset, tuple[Corruption, ...]] = {
    "depth_attenuation": tuple(DepthAttenuation(gamma=gamma) for gamma in (0.75, 1.5, 2.15)),
    "gaussian_shadow": tuple(
        GaussianShadow(strength=strength, sigma=sigma)
        for strength, sigma in ((0.4, 0.15), (0.6, 0.2), (0.8, 0.25))
    ),
    "haze": tuple(Haze(sigma=sigma) for sigma in (0.05, 0.1, 0.2)),
    "overgain": tuple(Gain(decibels=decibels) for decibels in (4.0, 8.0, 16.0)),
    "undergain": tuple(Gain(decibels=-decibels) for decibels in (4.0, 8.0, 16.0)),
}
"""Low, medium and high. Depth attenuation and Gaussian shadow as published. The others are ours: a
band of haze at mid-depth, as broad as the library that defines it draws at most (0.1), half and
twice that; and a gain of 4, 8 and 16 dB either way, which are 17, 34 and 68 grey levels."""


class Condition(NamedTuple):
    """One corruption of a suite."""

    preset: Preset
    step: int
    """1 is low, 2 medium, 3 high."""
    corruption: Corruption


class CorruptionSuite(Strict):
    """What a probe that has learnt from clean videos is judged on."""

    presets: tuple[Preset, ...] = Field(("depth_attenuation", "gaussian_shadow"), min_length=1)
    """Which corruptions, each low, medium and high. The default is the published test."""
    reencode: bool = True
    """Encode every corrupted video again, as published, and compare with clean videos that were;
    or do neither."""

    @property
    def control(self) -> Corruption | None:
        """What clean videos go through; nothing where corrupted ones are not re-encoded either."""
        return Reencoded() if self.reencode else None

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """All corruptions, preset by preset."""
        return tuple(
            Condition(preset, step, corruption)
            for preset in self.presets
            for step, corruption in enumerate(SEVERITIES[preset], start=1)
        )


def corrupted(
    frames: Frames, corruption: Corruption, clip_id: str, fps: float, *, reencode: bool = True
) -> Frames:
    """A video as it looks corrupted; always the same for the same arguments, in any process.

    Args:
        frames: all frames of the video, uint8 RGB [T, H, W, 3], of any size.
        clip_id: decides where a shadow lies and what static looks like.
        fps: the video's frames per second, of which only the encoder wants to know.
        reencode: see `CorruptionSuite`. `Reencoded` is re-encoded in any case, and once.

    Returns:
        uint8 [T, H, W, 3].
    """
    if isinstance(corruption, Reencoded):
        return _reencoded(frames, fps)
    changed = corruption.applied(frames, clip_id)
    return _reencoded(changed, fps) if reencode else changed


def sector(frames: Frames) -> NDArray[np.bool_]:
    """Where a video shows echoes, [H, W]: the convex hull of what is ever brighter than level 10.

    Strokes of less than five pixels (text, a trace) don't count, nor areas of less than a fiftieth
    of the largest one. A video that is never lit has no sector.
    """
    lit = (frames.max(axis=(0, 3)) > _BLACK).astype(np.uint8)
    lit = cv2.morphologyEx(lit, cv2.MORPH_OPEN, np.ones((_STROKE, _STROKE), np.uint8))
    outlines, _ = cv2.findContours(lit, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    found = np.zeros_like(lit)
    if outlines:
        sizes = [cv2.contourArea(outline) for outline in outlines]
        large = [o for o, size in zip(outlines, sizes, strict=True) if size >= max(sizes) / 50]
        cv2.fillConvexPoly(found, cv2.convexHull(np.concatenate(large)), 1)
    return np.asarray(found > 0)


def _reencoded(frames: Frames, fps: float) -> Frames:
    """Through H.264 (CRF 18, yuv420p) in memory; what makes sides even is cut off again."""
    height, width = frames.shape[1:3]
    file = io.BytesIO()
    encode_video(with_even_sides(frames), fps, file, _H264)
    found = video.read(
        Source(file.getvalue(), None), lambda seconds: np.arange(len(seconds)), len(frames)
    )
    return np.ascontiguousarray(found[:, :height, :width])


def _each(frames: Frames, change: Callable[[Frames, int], Floats]) -> Frames:
    """All frames, each changed by its pixels [H, W, 3] and its number."""
    out = np.empty_like(frames)
    for number, frame in enumerate(frames):
        out[number] = _grey(change(frame, number))
    return out


def _grey(levels: Floats) -> Frames:
    """To whole grey levels, half to even, from 0 to 255."""
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def _shares(frames: Frames) -> tuple[Floats, Floats]:
    """x/W [1, W] and y/H [H, 1] of frames [T, H, W, 3]."""
    height, width = frames.shape[1:3]
    return np.arange(width)[None, :] / width, np.arange(height)[:, None] / height


def _distance(frames: Frames) -> Floats:
    """d, [H, W]."""
    x, y = _shares(frames)
    return np.asarray(np.hypot(x - 0.5, y))


def _rng(seed: int, purpose: str, clip_id: str) -> SampleRng:
    """Numbers of one clip, for one purpose. Python's own hash differs between processes."""
    digest = hashlib.blake2b(f"{purpose}/{clip_id}".encode(), digest_size=8).digest()
    return SampleRng(seed, Domain.CORRUPTION, int.from_bytes(digest, "little") >> 1)  # 63 bits
