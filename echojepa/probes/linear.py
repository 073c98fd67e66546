"""Linear probes on frozen features: ridge for numbers, logistic regression for classes.

The regularisation is chosen on validation. The scaler of the features belongs to the fitted probe,
never to the data it is applied to. A slot that an example lacks is taken for the mean of training.

Shapes: n examples, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from echojepa.config import Strict
from echojepa.probes.examples import Material
from echojepa.probes.metrics import Floats

_RIDGE_ALPHAS = tuple(10.0**e for e in range(5, -3, -1))
_LOGISTIC_C = tuple(10.0**e for e in range(-4, 3))
"""Both from the simplest model on: of equally good ones the first is taken."""


class LinearConfig(Strict):
    """Ridge or logistic regression on pooled features."""

    kind: Literal["linear"] = "linear"


@dataclass(frozen=True)
class LinearProbe:
    """A fitted one: numbers, or the probabilities of classes."""

    mean: Floats
    """Of the features in training, [F]."""
    scale: Floats
    """Their deviation, [F]; 1 where they do not vary."""
    weight: Floats
    """[1, F] of a number, [C, F] of classes."""
    bias: Floats
    """[1] or [C]."""
    classes: NDArray[Any]
    """[C]; none of a number."""
    strength: float
    """Of the regularisation: ridge's alpha, or the inverse of it for classes."""

    @property
    def chosen(self) -> dict[str, float]:
        """What was chosen on validation."""
        return {"strength": self.strength}

    def predict(self, material: Material, index: NDArray[np.int64]) -> Floats:
        """Numbers in raw units [n], or probabilities [n, C], of some examples."""
        return self(material.vectors[index])

    def __call__(self, features: Floats) -> Floats:
        """Features [n, F] to numbers [n] or probabilities [n, C]; NaN counts as the mean."""
        scaled = np.nan_to_num((features - self.mean) / self.scale, nan=0.0)
        said = scaled @ self.weight.T + self.bias
        return np.asarray(softmax(said, axis=1) if len(self.classes) else said[:, 0])


def fit_linear(
    features: Floats,
    values: NDArray[Any],
    weights: Floats,
    score: Callable[[LinearProbe], float],
) -> LinearProbe:
    """Fit at every strength; the best by `score` is it.

    Args:
        features: of training, [n, F]; NaN where a slot is absent.
        values: numbers, or names of classes, [n].
        weights: how much an example counts, [n].
        score: of a probe on validation, the higher the better.
    """
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.preprocessing import StandardScaler

    numbers = values.dtype.kind == "f"
    features = np.where(np.isnan(features).all(axis=0), 0.0, features)  # no example has the slot
    scaler = StandardScaler().fit(features, sample_weight=weights)
    mean, scale = np.asarray(scaler.mean_), np.asarray(scaler.scale_)
    scaled = np.nan_to_num((features - mean) / scale, nan=0.0)
    best: tuple[float, LinearProbe] | None = None
    for strength in _RIDGE_ALPHAS if numbers else _LOGISTIC_C:
        model: Any = (
            Ridge(alpha=strength) if numbers else LogisticRegression(C=strength, max_iter=2000)
        )
        model.fit(scaled, values, sample_weight=weights)
        weight, bias = np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_)
        if not numbers and len(weight) == 1:  # two classes: scores of the second against zero
            weight, bias = np.vstack([0 * weight, weight]), np.append(0 * bias, bias)
        classes = np.empty(0) if numbers else model.classes_
        probe = LinearProbe(mean, scale, weight, bias, classes, strength)
        found = score(probe)
        if best is None or found > best[0]:
            best = (found, probe)
    assert best is not None
    return best[1]
