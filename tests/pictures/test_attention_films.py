"""Attention over a clip: colour where the map is high, at its own time, and grey elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.pages import Page

from echojepa.errors import ConfigError
from echojepa.models.encoder import EncoderConfig, VideoEncoder
from echojepa.pictures.attention_films import attention_section, brightest, overlay
from echojepa.pictures.films import Clip

SIZES = EncoderConfig(width=24, depth=3, num_heads=2, patch_size=16)
FRAMES = np.random.default_rng(0).integers(60, 200, (4, 32, 48, 3), np.uint8)
COLOURED = np.zeros((8, 32, 48, 3), np.uint8)
COLOURED[..., 0] = 200


def colourfulness(frames: np.ndarray) -> np.ndarray:
    """Distance between the channels, [T, H, W]."""
    return np.ptp(frames.astype(int), axis=-1)


def test_heat_is_where_and_when_the_map_is_high() -> None:
    heat = np.full((4, 2, 3), 1e-6, np.float32)
    heat[2, 1, 0] = 1.0
    shown = overlay(COLOURED, heat)
    assert shown.shape == COLOURED.shape and shown.dtype == np.uint8
    colour = colourfulness(shown)
    assert colour[4:6, 18:30, 2:14].mean() > 80
    assert colour[:4].max() <= 1 and colour[6:].max() <= 1  # red has become grey
    assert colour[4:6, :8, 34:].max() <= 1
    assert shown[0, 0, 0].tolist() == [60, 60, 60]  # the luma of red


def test_heat_is_smooth_between_tokens() -> None:
    heat = np.full((2, 2, 3), 0.1, np.float32)
    heat[:, :, 1] = 1.0
    row = overlay(np.zeros((2, 32, 48, 3), np.uint8), heat)[0, 16].astype(int).sum(axis=-1)
    assert np.abs(np.diff(row)).max() < 0.15 * row.max()
    assert row[24] > 5 * row[2]


def test_an_even_map_is_bright_everywhere() -> None:
    shown = overlay(COLOURED, np.full((4, 2, 3), 0.25, np.float32))
    assert np.ptp(shown, axis=(0, 1, 2)).max() == 0
    assert shown[0, 0, 0].sum() > 500


def test_one_token_that_draws_everything_leaves_the_others_visible() -> None:
    heat = np.random.default_rng(0).uniform(0.5, 1.5, (2, 16, 16)).astype(np.float32)
    heat[0, 3, 3] = 100.0
    assert brightest(heat) < 2
    assert colourfulness(overlay(np.zeros((2, 64, 64, 3), np.uint8), heat)).mean() > 50


def test_a_section_plays_every_clip_layer_head_and_kind() -> None:
    torch.manual_seed(1)
    encoder = VideoEncoder(SIZES).eval()
    clips = [Clip("A4C <1>", FRAMES, 8.0), Clip("PLAX", FRAMES[::-1].copy(), 8.0)]
    text = attention_section("<ours>", encoder, clips, layers=(0, 2), heads=("mean", 1))
    page = Page(text)
    assert "Attention: <ours>" in page.text
    said = [value for name, value in page.attributes if name == "aria-label"]
    wanted = [
        caption
        for clip in clips
        for layer in (0, 2)
        for head in ("mean of 2 heads", "head 1")
        for caption in (
            clip.caption,
            f"layer {layer} of 0-2, {head}: received",
            f"layer {layer} of 0-2, {head}: given",
        )
    ]
    assert [caption.split(", 0 to")[0] for caption in said] == wanted
    assert page.tags.count("video") == len(wanted)
    films = page.films()
    assert all(film.shape == FRAMES.shape for film in films.values())
    heat = [film for caption, film in films.items() if caption.startswith("layer")]
    assert all(colourfulness(film).mean() > 20 for film in heat)


@pytest.mark.parametrize("heads", [(2,), ("mean", -1)])
def test_a_head_that_is_not_there_is_named(heads: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"no such head.*from 0 to 1, or 'mean'"):
        attention_section("x", VideoEncoder(SIZES), [Clip("a", FRAMES, 8.0)], (0,), heads)
