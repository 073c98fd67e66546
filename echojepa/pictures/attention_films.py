"""Attention maps over the clip they are of, as films."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Literal

import cv2
import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from echojepa.errors import ConfigError
from echojepa.models.encoder import VideoEncoder
from echojepa.page import section
from echojepa.pictures.attention import AttentionMaps, attention_maps, block_inputs
from echojepa.pictures.films import Clip, playing

Head = int | Literal["mean"]
"""One head, from 0, or the mean over all."""
_TOP = 99.0
"""The percentile of a film's values that is brightest: a few tokens that draw all attention would
leave everything else dark. Darkest is always 0, so that even attention looks even."""
_OPACITY = 0.75
_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def attention_section(
    name: str,
    encoder: VideoEncoder,
    clips: Sequence[Clip],
    layers: Sequence[int],
    heads: Sequence[Head] = ("mean",),
) -> str:
    """Every clip, and the attention it meets in some layers and heads, playing side by side.

    A row per layer and head: the clip, what its tokens receive, what they give.

    Args:
        name: of the encoder.
        encoder: in evaluation mode.
        clips: of the size that the encoder wants.
        layers: indices of blocks, from 0.

    Raises:
        ConfigError: the encoder has no such layer or head.
        ValueError: a clip is not a whole number of tubelets.
    """
    number = encoder.config.num_heads
    if not all(head == "mean" or 0 <= head < number for head in heads):
        raise ConfigError(
            f"attention of the heads {tuple(heads)}: the encoder has no such head",
            f"Name heads from 0 to {number - 1}, or 'mean'.",
        )
    body = (
        "<p class='note'>Received: how much all tokens of the clip look at this one; 1 is what "
        "uniform attention gives. Given: the share of its attention that a token gives to its own "
        f"time step. Colours run from 0 to the {_TOP:g}th percentile of a film, which its caption "
        "names: a film that is bright everywhere shows attention that is even.</p>"
    )
    for clip in clips:
        body += f"<h3>{html.escape(clip.caption)}</h3>"
        itself, inputs = playing(clip), block_inputs(encoder, clip.frames, layers)
        for layer in layers:
            maps = attention_maps(inputs[layer])
            where = f"layer {layer} of 0-{len(encoder.blocks) - 1}"
            for head in heads:
                films = itself + "".join(map(playing, _films(clip, where, maps, head)))
                body += f"<div class='films three'>{films}</div>"
    return section(f"Attention: {name}", body)


def _films(clip: Clip, where: str, maps: AttentionMaps, head: Head) -> list[Clip]:
    """Both maps of a head over the clip."""
    said = f"mean of {len(maps.received)} heads" if head == "mean" else f"head {head}"
    found = []
    for kind, values in maps._asdict().items():
        heat = values.mean(axis=0) if head == "mean" else values[head]
        caption = f"{where}, {said}: {kind}, 0 to {brightest(heat):.2f}"
        found.append(Clip(caption, overlay(clip.frames, heat), clip.fps))
    return found


def brightest(heat: NDArray[np.float32]) -> float:
    """The value from which on a map [F, R, C] is brightest."""
    return float(np.percentile(heat, _TOP))


def overlay(frames: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A clip in grey under a map in colour, which is the more opaque the brighter it is.

    The map is interpolated between tokens, and stands still for the frames of a token.

    Args:
        frames: RGB [T, H, W, 3].
        heat: [F, R, C], above 0, where F divides T.

    Returns:
        [T, H, W, 3].
    """
    scaled = np.minimum(heat / brightest(heat), 1)
    height, width = frames.shape[1:3]
    smooth = np.stack(
        [cv2.resize(m, (width, height), interpolation=cv2.INTER_CUBIC) for m in scaled]
    ).clip(0, 1)
    smooth = np.repeat(smooth, len(frames) // len(heat), axis=0)  # [T, H, W]
    colour = mpl.colormaps["inferno"](smooth)[..., :3] * 255
    alpha = _OPACITY * smooth[..., None]
    grey = (frames @ _GREY)[..., None]
    return np.asarray((grey * (1 - alpha) + colour * alpha).round(), np.uint8)
