"""The EMA target: a slow average of the online encoder, kept and updated in float32.

At momentum 0.99925 a bfloat16 average would not move: the increment, 1/1333 of the difference, is
lost in rounding. So the average lives in float32, is fed from the optimiser's float32 master
weights after the step, shard by shard with no communication, and only its rounded copy is what the
forward pass of the target uses.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch


@torch.no_grad()
def ema_update(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]], momentum: float) -> None:
    """Move every target towards its online twin: target += (1 - momentum) (online - target).

    Args:
        pairs: (target, online) float32 tensors or shards of equal shape; targets change in place.
        momentum: share of the old target that stays, 0 to 1.
    """
    for target, online in pairs:
        assert target.dtype == online.dtype == torch.float32, "the average is kept in float32"
        target.lerp_(online, 1.0 - momentum)
