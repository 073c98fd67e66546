"""What tests of several frozen encoders ask alike."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from echojepa.encoders.frozen import FrozenEncoder, PooledFeatures
from echojepa.encoders.source import Source


def features(encoder: FrozenEncoder, clips: NDArray[np.uint8]) -> torch.Tensor:
    """What it gives, tokens or whole clips, float32."""
    found = encoder.encode(clips)
    values = found.values if isinstance(found, PooledFeatures) else found.tokens
    return values.float().cpu()


def check_twin(source: Source, other_weights: Source, clips: NDArray[np.uint8]) -> None:
    """The twin is its seed: the same from two files of one architecture, and neither's encoder."""
    one, same = (
        features(s.model_copy(update={"random_seed": 1}).load(), clips)
        for s in (source, other_weights)
    )
    other = features(source.model_copy(update={"random_seed": 2}).load(), clips)
    trained = [features(s.load(), clips) for s in (source, other_weights)]
    assert one.std() > 0
    assert torch.equal(one, same)
    assert one.shape == trained[0].shape
    assert not any(torch.allclose(one, values, atol=1e-3) for values in (other, *trained))
    assert not torch.allclose(*trained, atol=1e-3)
