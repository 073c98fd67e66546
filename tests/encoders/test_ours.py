"""Our encoders as frozen ones: loaded whole, never trained, tokens with their grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from echojepa.data.sampling import ClipConfig
from echojepa.encoders.ours import OurNetwork, OurSource, UntrainedSource
from echojepa.encoders.source import NetworkEncoder
from echojepa.errors import CheckpointError
from echojepa.models.attention import Grid
from echojepa.models.encoder import EncoderConfig, VideoEncoder, normalise
from echojepa.models.weights import save_encoder

CLIP = ClipConfig(num_frames=4, fps=10.0, size=16)
TINY = EncoderConfig(width=24, depth=1, num_heads=2, patch_size=8)


def built(source: UntrainedSource | OurSource) -> VideoEncoder:
    """The network inside."""
    network = source.load().network
    assert isinstance(network, OurNetwork)
    return network.encoder


def test_it_gives_every_token_and_the_grid() -> None:
    encoder = VideoEncoder(TINY)
    clips = np.random.default_rng(0).integers(0, 256, (3, 4, 16, 16, 3), np.uint8)
    found = NetworkEncoder(OurNetwork(encoder), CLIP).encode(clips)
    assert found.grid == Grid(2, 2, 2)
    with torch.no_grad():
        wanted = encoder(normalise(torch.from_numpy(clips), torch.float32))
    assert torch.equal(found.tokens, wanted)
    assert not found.tokens.requires_grad


def test_a_random_encoder_is_its_seed() -> None:
    one, same, other = (
        built(UntrainedSource(encoder=TINY, clip=CLIP, random_seed=seed)) for seed in (1, 1, 2)
    )
    weights = [encoder.state_dict()["blocks.0.attn.qkv.weight"] for encoder in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not one.training
    assert not any(parameter.requires_grad for parameter in one.parameters())


def test_an_encoder_folder_is_loaded(tmp_path: Path) -> None:
    saved = VideoEncoder(TINY)
    folder = save_encoder(tmp_path / "e", TINY, saved.state_dict(), CLIP.model_dump(), "")
    encoder = built(OurSource(path=str(folder)))
    assert all(torch.equal(t, encoder.state_dict()[n]) for n, t in saved.state_dict().items())
    assert not encoder.training
    with pytest.raises(CheckpointError):
        OurSource(path=str(tmp_path / "none")).load()
