"""How spread out the target's features are: the first sign of a collapsing representation."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from echojepa.randomness import mix

NUM_TOKENS = 8192
"""Tokens of all ranks together that statistics are made of, about: as many on 8 workers as on 2."""
_STEP, _TOKEN = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD1B54A32D192ED03)
"""Odd numbers with well-mixed bits: steps and tokens fall on distinct 64-bit numbers."""


def drawn_tokens(
    samples: NDArray[np.int64], step: int, num_tokens: int, count: int
) -> NDArray[np.int64]:
    """Which tokens of each clip to look at: drawn anew for every (step, clip), all alike likely.

    Args:
        samples: global sample indices, [B].
        num_tokens: that a clip has (N).
        count: to draw of them without replacement; all, if it has no more.

    Returns:
        Positions, [B, min(count, N)].
    """
    if count >= num_tokens:
        return np.tile(np.arange(num_tokens), (len(samples), 1))
    with np.errstate(over="ignore"):  # arithmetic of hashes is modulo 2^64
        clips = mix(samples.astype(np.uint64) + np.uint64(step) * _STEP)
        keys = mix(clips[:, None] + np.arange(num_tokens, dtype=np.uint64) * _TOKEN)
    return np.argpartition(keys, count, axis=1)[:, :count]


def feature_moments(
    features: torch.Tensor,
    weights: torch.Tensor,
    samples: NDArray[np.int64],
    step: int,
    per_clip: int,
) -> NDArray[np.float64]:
    """Count, sum and outer-product sum of some token features of the clips that count, flat.

    Args:
        features: [B, N, D].
        weights: [B]; clips of weight 0 are left out.
        samples: global sample indices, [B].
        per_clip: tokens of a clip to draw, see `drawn_tokens`.
    """
    positions = torch.from_numpy(drawn_tokens(samples, step, features.shape[1], per_clip))
    rows = torch.arange(len(features), device=features.device)[:, None]
    drawn = features[rows, positions.to(features.device)]
    tokens = drawn[weights > 0].flatten(0, 1).double()
    outer = tokens.T @ tokens
    count = torch.tensor([float(len(tokens))], dtype=torch.float64, device=tokens.device)
    flat = torch.cat([count, tokens.sum(0), outer.flatten()])
    return np.asarray(flat.cpu().numpy())


def spread_of(moments: NDArray[np.float64], width: int) -> dict[str, float]:
    """Statistics of moments that were summed over ranks.

    The full spectrum costs 0.13 s at D = 1408 on one core of an AMD EPYC: one rank computes it.

    Returns:
        All NaN for features that are not finite, else
        feature_std: mean over dimensions of the standard deviation.
        feature_std_min: the smallest of them.
        effective_rank: exp of the entropy of the normalised singular values of the centred
            features (Roy and Vetterli 2007), between 1 and D.
    """
    count = max(moments[0], 1.0)
    mean = moments[1 : 1 + width] / count
    covariance = moments[1 + width :].reshape(width, width) / count - np.outer(mean, mean)
    if not np.isfinite(covariance).all():
        return dict.fromkeys(("feature_std", "feature_std_min", "effective_rank"), math.nan)
    deviation = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    singular = np.sqrt(np.maximum(np.linalg.eigvalsh(covariance), 0.0))
    share = singular / max(singular.sum(), 1e-30)
    entropy = -(share * np.log(np.maximum(share, 1e-30))).sum()
    return {
        "feature_std": float(deviation.mean()),
        "feature_std_min": float(deviation.min()),
        "effective_rank": float(np.exp(entropy)),
    }
