"""How spread out the target's features are: the first sign of a collapsing representation."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from echojepa.train import collectives

_MAX_TOKENS = 4096


def feature_moments(features: torch.Tensor, weights: torch.Tensor) -> NDArray[np.float64]:
    """Count, sum and outer-product sum of token features of the clips that count, flat float64.

    Args:
        features: [B, N, D]; every k-th token is taken so that at most 4,096 are.
        weights: [B]; clips of weight 0 are left out.
    """
    tokens = features[weights > 0].flatten(0, 1).float()
    tokens = tokens[:: max(1, -(-len(tokens) // _MAX_TOKENS))].double()
    outer = tokens.T @ tokens
    count = torch.tensor([float(len(tokens))], dtype=torch.float64, device=tokens.device)
    flat = torch.cat([count, tokens.sum(0), outer.flatten()])
    return np.asarray(flat.cpu().numpy())


def spread(moments: NDArray[np.float64], width: int) -> dict[str, float]:
    """Statistics of all ranks' moments together; a collective call.

    Returns:
        feature_std: mean over dimensions of the standard deviation.
        feature_std_min: the smallest of them.
        effective_rank: exp of the entropy of the normalised singular values of the centred
            features (Roy and Vetterli 2007), between 1 and D.
    """
    flat = collectives.total(moments)
    count = max(flat[0], 1.0)
    mean = flat[1 : 1 + width] / count
    covariance = flat[1 + width :].reshape(width, width) / count - np.outer(mean, mean)
    deviation = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    singular = np.sqrt(np.maximum(np.linalg.eigvalsh(covariance), 0.0))
    share = singular / max(singular.sum(), 1e-30)
    entropy = -(share * np.log(np.maximum(share, 1e-30))).sum()
    return {
        "feature_std": float(deviation.mean()),
        "feature_std_min": float(deviation.min()),
        "effective_rank": float(np.exp(entropy)),
    }
