"""Regularisers: a batch of embeddings must be spread out, so that not all clips look alike.

A clip's embedding is the mean over its tokens. The published terms are statistics of a batch, and a
batch is cut differently for every number of workers. Here the statistic is that of a *group*: a
fixed number of consecutive samples, whoever computes them. Every clip of a group has the group's
value as its loss, so that the mean over clips is the mean over groups. Micro-batches are cut into
whole groups, filled up with padding, so that 1, 2 or 3 workers give one gradient.

A statistic over the tokens of single clips would need no groups, but it would not do: tokens that
encode nothing but their own position are spread out perfectly, are the same for all clips, and are
predicted without error.

A clip that cannot be read is black, counts for nothing itself, but is one embedding of its group.

Shapes: B clips, n clips of a group, K tokens, D width, M directions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch.nn import functional as F

from echojepa.config import Strict
from echojepa.data.stream import StreamShape
from echojepa.errors import ConfigError
from echojepa.randomness import Domain, SampleRng, Seeds

_LIMIT = 5.0
"""Up to which frequency characteristic functions are compared; LeJEPA's."""
_EPSILON = 1e-4
"""Added to variances before the root; VICReg's."""


class RegulariserConfig(Strict, ABC):
    """What all of them have."""

    weight: float = Field(1.0, gt=0)
    """Of the statistic beside the error of prediction."""
    group: int = Field(ge=2)
    """Clips of one statistic (n): consecutive samples. Micro-batches are whole groups, which divide
    loop.global_batch."""

    @abstractmethod
    def draw(self, samples: NDArray[np.int64], width: int, seeds: Seeds) -> list[torch.Tensor]:
        """What the statistics of these samples [B] need of random numbers."""

    @abstractmethod
    def statistics(self, embeddings: torch.Tensor, drawn: Sequence[torch.Tensor]) -> torch.Tensor:
        """Of groups of float32 embeddings [groups, n, D], [groups]; differentiable."""

    @abstractmethod
    def describe(self) -> str:
        """For the model card."""

    def losses(self, features: torch.Tensor, drawn: Sequence[torch.Tensor]) -> torch.Tensor:
        """Weighted statistics of the groups that clips are in, [B].

        Args:
            features: of tokens, [B, K, D], whole groups of consecutive samples.
            drawn: what `draw` gave.
        """
        embeddings = features.float().mean(dim=1).unflatten(0, (-1, self.group))
        return self.weight * self.statistics(embeddings, drawn).repeat_interleave(self.group)

    def check_shape(self, shape: StreamShape) -> None:
        """Raise `ConfigError` if a micro-batch, or the global batch, is not whole groups."""
        if shape.micro_batch % self.group or shape.global_batch % self.group:
            raise ConfigError(
                f"groups of {self.group} clips do not fit a micro-batch of {shape.micro_batch} and "
                f"a global batch of {shape.global_batch} on {shape.world_size} workers",
                "Choose a group that divides loop.global_batch and is no larger than "
                "optimizer.max_micro_batch.",
                "objective.regulariser.group",
            )


class SigregConfig(RegulariserConfig):
    """SIGReg: embeddings are standard Gaussian along random directions.

    LeJEPA (Balestriero and LeCun 2025): the Epps-Pulley statistic of the projections x of n
    embeddings onto a unit vector, averaged over M of them that are drawn anew at every step,

        n * integral over [-5, 5] of |mean(exp(i t x)) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt,

    by the trapezoid rule. For Gaussian embeddings it is sqrt(2 pi) (1 - 1 / sqrt(3)) = 1.06 on
    average, whatever n is; for equal ones it grows with n.
    """

    kind: Literal["sigreg"] = "sigreg"
    weight: float = Field(0.05, gt=0)
    """Of the statistic beside the error of prediction; LeJEPA's lambda is weight / (1 + weight)."""
    num_directions: int = Field(256, gt=0)
    """Random unit vectors per group and step (M)."""
    num_knots: int = Field(17, ge=5)
    """Points at which the integrand is evaluated."""

    def draw(self, samples: NDArray[np.int64], width: int, seeds: Seeds) -> list[torch.Tensor]:
        """Unit vectors of every group, one tensor [groups, M, D], keyed by its first sample."""
        found = [
            _directions(SampleRng(seeds.at(s), Domain.DIRECTION, s), self.num_directions, width)
            for s in samples[:: self.group].tolist()
        ]
        return [torch.from_numpy(np.stack(found))]

    def statistics(self, embeddings: torch.Tensor, drawn: Sequence[torch.Tensor]) -> torch.Tensor:
        """See `RegulariserConfig`."""
        (directions,) = drawn
        projected = embeddings @ directions.to(embeddings.dtype).mT  # [groups, n, M]
        knots = torch.linspace(
            -_LIMIT, _LIMIT, self.num_knots, device=projected.device, dtype=projected.dtype
        )
        angles = projected[..., None] * knots  # [groups, n, M, knots]
        gaussian = (-knots.square() / 2).exp()
        real, imaginary = angles.cos().mean(dim=1), angles.sin().mean(dim=1)
        gaps = (real - gaussian).square() + imaginary.square()
        integrals = torch.trapezoid(gaps * gaussian, knots, dim=-1)  # [groups, M]
        return embeddings.shape[1] * integrals.mean(dim=-1)

    def describe(self) -> str:
        """See `RegulariserConfig`."""
        return (
            f"SIGReg of groups of {self.group} clips, weight {self.weight:g}, "
            f"{self.num_directions} directions"
        )


class VicregConfig(RegulariserConfig):
    """VICReg's variance and covariance terms (Bardes et al. 2022).

    Per channel max(0, 1 - standard deviation), averaged; and the squares of all covariances of two
    different channels, summed and divided by D. Its invariance term is the error of prediction.
    """

    kind: Literal["vicreg"] = "vicreg"
    covariance_weight: float = Field(0.04, ge=0)
    """Of the covariance term beside that of the variance; published are 1 and 25."""

    def draw(self, samples: NDArray[np.int64], width: int, seeds: Seeds) -> list[torch.Tensor]:
        """See `RegulariserConfig`; nothing is random."""
        del samples, width, seeds
        return []

    def statistics(self, embeddings: torch.Tensor, drawn: Sequence[torch.Tensor]) -> torch.Tensor:
        """See `RegulariserConfig`."""
        del drawn
        centred = embeddings - embeddings.mean(dim=1, keepdim=True)
        covariance = centred.mT @ centred / (embeddings.shape[1] - 1)  # [groups, D, D]
        variances = covariance.diagonal(dim1=1, dim2=2)
        variance = F.relu(1 - (variances + _EPSILON).sqrt()).mean(dim=1)
        between = covariance.square().sum(dim=(1, 2)) - variances.square().sum(dim=1)
        return variance + self.covariance_weight * between / embeddings.shape[-1]

    def describe(self) -> str:
        """See `RegulariserConfig`."""
        return (
            f"VICReg of groups of {self.group} clips, weight {self.weight:g}, of the covariance "
            f"{self.weight * self.covariance_weight:g}"
        )


def _directions(rng: SampleRng, number: int, width: int) -> NDArray[np.float32]:
    """Uniform on the unit sphere, [number, width]: Gaussian vectors, scaled (Box and Muller)."""
    half = -(-number * width // 2)
    radius = np.sqrt(-2 * np.log1p(-rng.uniforms(half)))
    angle = 2 * np.pi * rng.uniforms(half)
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[: number * width]
    vectors = normal.reshape(number, width)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
