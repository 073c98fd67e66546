"""AdamW over all heads of a grid, each with its own learning rate and weight decay."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn


def lr_factor(step: int, warmup_steps: int, num_steps: int) -> float:
    """Share of the peak learning rate that optimiser step `step` (from 0) trains with.

    From zero to one over the warm-up, then to zero as half a cosine. As in V-JEPA 2, a step is
    counted before it is used: step 0 trains with 1 / `warmup_steps`, the last one with zero.
    """
    counted = step + 1
    if counted < warmup_steps:
        return counted / warmup_steps
    progress = (counted - warmup_steps) / (num_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))


class GridAdamW:
    """One group of `torch.optim.AdamW` per head, over views of the batched parameters.

    Loshchilov and Hutter 2019; betas 0.9 and 0.999, epsilon 1e-8. All parameters decay.
    """

    def __init__(self, heads: nn.Module, weight_decays: Sequence[float]) -> None:
        """Begin.

        Args:
            heads: every parameter has one leading dimension for the heads.
            weight_decays: of every head.
        """
        self._heads = heads
        self._views = [
            [nn.Parameter(p.detach()[head]) for p in heads.parameters()]
            for head in range(len(weight_decays))
        ]
        groups = [
            {"params": views, "weight_decay": decay}
            for views, decay in zip(self._views, weight_decays, strict=True)
        ]
        self._adamw = torch.optim.AdamW(groups, fused=True)

    def step(self, learning_rates: Sequence[float]) -> None:
        """One step of every head from the gradients of its parameters, which are then dropped."""
        parameters = list(self._heads.parameters())
        for head, views in enumerate(self._views):
            for view, parameter in zip(views, parameters, strict=True):
                assert parameter.grad is not None
                view.grad = parameter.grad[head]
        for group, rate in zip(self._adamw.param_groups, learning_rates, strict=True):
            group["lr"] = rate
        self._adamw.step()
        self._adamw.zero_grad()
        self._heads.zero_grad()
