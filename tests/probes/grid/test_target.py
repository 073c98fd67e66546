"""Labels become what heads are taught, with the scaler of training and nobody else's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.grids import EF, VIEW, arranged, labels, samples

from echojepa.errors import ManifestError
from echojepa.probes.grid.config import GridConfig
from echojepa.probes.grid.fit import Training, fit_grid
from echojepa.probes.grid.target import Target, losses


def test_numbers_are_standardised_by_their_weights_and_come_back() -> None:
    values, weights = np.array([40.0, 60.0, 60.0]), np.array([1.0, 0.5, 0.5])
    target = Target.of("regression", values, weights)
    assert (target.mean, target.deviation) == (50.0, 10.0)
    z = target.encode(values)
    assert z.tolist() == [-1.0, 1.0, 1.0]
    np.testing.assert_allclose(target.decode(z[None, :, None]), values[None])
    with pytest.raises(ManifestError, match="1 different values"):
        Target.of("regression", np.full(3, 50.0), weights)


def test_classes_are_those_of_training_in_a_fixed_order() -> None:
    values = np.array(["PLAX", "A4C", "PLAX", "SC4C"])
    target = Target.of("classification", values, np.ones(4))
    assert target.classes == ("A4C", "PLAX", "SC4C")
    assert target.encode(values).tolist() == [1, 0, 1, 2]
    logits = torch.tensor([[0.0, 1.0, -torch.inf]])
    said = target.decode(logits)
    np.testing.assert_allclose(said[0], [1 / (1 + np.e), np.e / (1 + np.e), 0])


def test_class_weights_make_classes_count_alike_and_keep_the_mean() -> None:
    values = np.array(["a"] * 6 + ["b"] * 2 + ["c"])
    weights = np.array([1.0, 1, 1, 0.5, 0.25, 0.25, 1, 1, 0.1])
    target = Target.of("classification", values, weights)
    plain = target.sample_weights(values, weights, by_class=False)
    np.testing.assert_allclose(plain, weights / weights.mean())
    balanced = target.sample_weights(values, weights, by_class=True)
    assert balanced.mean() == pytest.approx(1)
    sums = [balanced[values == name].sum() for name in "abc"]
    assert sums == pytest.approx([3.0, 3.0, 3.0])
    assert balanced[3] == pytest.approx(balanced[0] / 2), "weights of studies stay in"


def test_losses_are_those_of_torch_for_every_head() -> None:
    logits, truth = torch.randn(3, 5, 4), torch.tensor([0, 3, 1, 1, 2])
    plain, focal = (losses(logits, truth, focal=focal) for focal in (False, True))
    for head in range(3):
        entropy = torch.nn.functional.cross_entropy(logits[head], truth, reduction="none")
        torch.testing.assert_close(plain[head], entropy)
        torch.testing.assert_close(focal[head], (1 - (-entropy).exp()) ** 2 * entropy)
    z, said = torch.tensor([0.0, 3.0]), torch.tensor([[[0.5], [0.0]]])
    for focal in (False, True):
        assert losses(said, z, focal=focal).tolist() == [[0.125, 2.5]]


SETTINGS: dict[str, Any] = {"head": "linear", "lr": (5e-2,), "weight_decay": (0.0,), "epochs": 30}


def probability_of_the_rare(**settings: Any) -> float:
    """What is said of samples that are all alike, 10% of which are labelled rare."""
    tokens, present, splits = samples((200, 40, 40))
    tokens[:] = 1
    values = np.where(np.arange(280) % 10 == 0, "rare", "usual")
    config = GridConfig(**SETTINGS, **settings)
    training = Training(config, arranged(tokens, present), labels(values, splits, VIEW))
    for epoch in range(config.epochs):
        training.train(epoch)
    with torch.no_grad():
        logits = training.heads(arranged(tokens, present).batch(np.arange(1)))
    return float(logits[0, 0].softmax(dim=0)[0])


def test_class_weights_raise_what_is_said_of_rare_classes_to_an_equal_share() -> None:
    assert probability_of_the_rare() == pytest.approx(0.1, abs=0.01)
    assert probability_of_the_rare(class_weights=True) == pytest.approx(0.5, abs=0.02)


def test_the_focal_loss_makes_heads_less_sure() -> None:
    """Where 10% are rare, this is what it costs least to say."""
    p = np.linspace(0.01, 0.99, 981)
    cost = -0.1 * (1 - p) ** 2 * np.log(p) - 0.9 * p**2 * np.log(1 - p)
    cheapest = p[cost.argmin()]
    assert cheapest > 0.2
    assert probability_of_the_rare(loss="focal") == pytest.approx(cheapest, abs=0.01)


def test_a_study_of_twenty_samples_weighs_as_one() -> None:
    """In the scaler, and in the loss: half of the studies say 40, and most samples say 60."""
    tokens, present, splits = samples((220, 20, 20))
    tokens[:] = 1.0  # nothing to tell them apart
    first = np.arange(260) < 210
    studies = np.where(first, "big", "x").astype("U8")
    studies = np.where(first, np.char.add("big", (np.arange(260) // 21).astype(str)), studies)
    studies[~first] = [f"small{i}" for i in range((~first).sum())]
    values = np.where(first, 60.0, 40.0)
    by_study = labels(values, splits, EF, studies)
    config = GridConfig(**{**SETTINGS, "lr": (1e-2,)})
    fit = fit_grid(config, arranged(tokens, present), by_study)
    assert fit.record.target.mean == pytest.approx(50.0)
    assert fit.predict(arranged(tokens, present), np.arange(1))[0] == pytest.approx(50, abs=1.5)
    by_clip = labels(values, splits, EF.model_copy(update={"level": "clip"}), studies)
    other = fit_grid(config, arranged(tokens, present), by_clip)
    assert other.record.target.mean == pytest.approx((210 * 60 + 10 * 40) / 220)
    assert other.predict(arranged(tokens, present), np.arange(1))[0] > 57
