"""From labels to what heads are taught, and back to raw units or classes.

Shapes: n labels, G heads, B samples of a batch, C classes.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch.nn import functional as F

from echojepa.config import Strict
from echojepa.errors import ManifestError
from echojepa.probes.metrics import Floats

_GAMMA = 2


class Target(Strict):
    """What training labels say about how to read the outputs of a head; belongs to the head, never
    to the data that it is applied to."""

    kind: Literal["regression", "classification"]
    """Whether heads give a number or classes."""
    mean: float = 0.0
    """Of training numbers, weighted; raw units."""
    deviation: float = Field(1.0, gt=0)
    """Of training numbers, weighted; raw units."""
    classes: tuple[str, ...] = ()
    """Of training, in the order of a head's outputs."""

    @classmethod
    def of(
        cls, kind: Literal["regression", "classification"], values: NDArray[Any], weights: Floats
    ) -> Target:
        """That of training labels.

        Args:
            values: numbers in raw units, or names of classes, [n].
            weights: how much each counts, [n].

        Raises:
            ManifestError: there are no labels, or they are all the same.
        """
        if len(np.unique(values)) < 2:
            raise ManifestError(
                f"the training labels have {len(np.unique(values))} different values",
                "Label clips of the training split differently, or drop the task.",
            )
        if kind == "classification":
            return cls(kind=kind, classes=tuple(np.unique(values).tolist()))
        share = weights / weights.sum()
        mean = float(share @ values)
        deviation = float(np.sqrt(share @ (values - mean) ** 2))
        return cls(kind=kind, mean=mean, deviation=deviation)

    @property
    def num_outputs(self) -> int:
        """Of a head."""
        return len(self.classes) if self.kind == "classification" else 1

    def encode(self, values: NDArray[Any]) -> torch.Tensor:
        """Training labels to standardised numbers, float64 [n], or class indices, int64 [n]."""
        if self.kind == "regression":
            return torch.from_numpy((values - self.mean) / self.deviation)
        return torch.from_numpy(np.searchsorted(np.array(self.classes), values))

    def decode(self, outputs: torch.Tensor) -> Floats:
        """Outputs [..., n, outputs] to numbers in raw units [..., n], or probabilities of classes
        [..., n, C]."""
        exact = outputs.detach().cpu().double()
        if self.kind == "regression":
            return np.asarray(exact[..., 0].numpy() * self.deviation + self.mean)
        return np.asarray(exact.softmax(dim=-1).numpy())

    def sample_weights(self, values: NDArray[Any], weights: Floats, *, by_class: bool) -> Floats:
        """How much training samples count in the loss, 1 on average, [n].

        Args:
            by_class: weigh by the inverse frequency of the class, too: together, samples of a class
                then count as much as those of any other.
        """
        if by_class and self.kind == "classification":
            index = self.encode(values).numpy()
            weights = weights / np.bincount(index, weights)[index]
        return np.asarray(weights / weights.mean())


def losses(outputs: torch.Tensor, truth: torch.Tensor, *, focal: bool) -> torch.Tensor:
    """How wrong every head is on every sample, [G, B].

    Args:
        outputs: [G, B, outputs].
        truth: see `Target.encode`, [B]: numbers are scored by the smooth L1 loss (Girshick 2015),
            classes by the cross-entropy.
        focal: of classes: times (1 - p)^2, p the probability of the true class (Lin et al. 2017,
            with alpha 1 and gamma 2).
    """
    if truth.is_floating_point():
        said = outputs[..., 0]
        return F.smooth_l1_loss(said, truth.expand_as(said), reduction="none")
    logs = outputs.log_softmax(dim=-1)
    of_truth = logs.gather(-1, truth.expand(len(logs), -1)[..., None])[..., 0]
    return -of_truth * (1 - of_truth.exp()) ** _GAMMA if focal else -of_truth
