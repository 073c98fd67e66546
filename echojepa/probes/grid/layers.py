"""Layers for all heads of a grid at once: every parameter has a leading dimension G.

The names of parameters are those of one head's layers in torch, so that `name[g]` of a state dict
is the state dict of head g.

Shapes: G heads of a grid, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

EPSILON = 1e-5
"""Of layer norms, torch's default: what V-JEPA 2's attentive probes use."""
_DEVIATION = 0.02


class _Product(torch.autograd.Function):
    """x W' + b of G heads, [G, M, inputs] to [G, M, outputs].

    Autograd's own gradient of W is that of W', which it turns and copies in every step: for a batch
    of few samples that takes as long as all products together.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return torch.baddbmm(bias[:, None], x, weight.mT)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x = grad @ weight if ctx.needs_input_grad[0] else None
        return of_x, grad.mT @ x, grad.sum(dim=1)


class BatchedLinear(nn.Module):
    """G linear layers."""

    def __init__(self, grid: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(grid, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(grid, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[G, ..., inputs] to [G, ..., outputs]."""
        flat = x.reshape(len(self.weight), -1, x.shape[-1])
        out: torch.Tensor = _Product.apply(flat, self.weight, self.bias)
        return out.reshape(*x.shape[:-1], -1)


class BatchedLayerNorm(nn.Module):
    """G layer norms."""

    def __init__(self, grid: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(grid, width))
        self.bias = nn.Parameter(torch.zeros(grid, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[G or 1, ..., D] to [G, ..., D]."""
        normed = F.layer_norm(x, x.shape[-1:], eps=EPSILON)
        return normed * over(self.weight, x) + over(self.bias, x)


class BatchedMlp(nn.Module):
    """G times two linear layers with a GELU between."""

    def __init__(self, grid: int, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = BatchedLinear(grid, width, hidden)
        self.fc2 = BatchedLinear(grid, hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[G, ..., D] to the same."""
        out: torch.Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class BatchedEmbedding(nn.Module):
    """G tables of learned vectors."""

    def __init__(self, grid: int, rows: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(grid, rows, width))


def over(vectors: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A vector per head, [G, D], shaped to broadcast over [G, ..., D]."""
    return vectors.reshape(len(vectors), *[1] * (x.ndim - 2), -1)


@torch.no_grad()
def draw(parameter: nn.Parameter, generator: torch.Generator) -> None:
    """Fill all heads with one draw of a normal distribution of deviation 0.02."""
    value = torch.empty(parameter.shape[1:])
    parameter.copy_(nn.init.trunc_normal_(value, std=_DEVIATION, generator=generator))


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of linear layers and tables; biases start at zero, norms at one.

    Heads start alike, so that they differ in their settings only, and a head of a grid is the head
    that a grid of one has.
    """
    for child in module.modules():
        if isinstance(child, BatchedLinear | BatchedEmbedding):
            draw(child.weight, generator)
