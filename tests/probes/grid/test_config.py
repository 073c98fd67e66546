"""The settings of a grid: the default is the published one, and contradictions are refused."""

from __future__ import annotations

from typing import Any

import pytest

from echojepa.config import validate
from echojepa.errors import ConfigError
from echojepa.probes.grid.config import GridConfig


def test_the_default_is_the_grid_of_twelve_heads() -> None:
    config = GridConfig()
    assert config.heads == tuple(
        (lr, decay, 2) for lr in (5e-4, 1e-4, 5e-5, 1e-5) for decay in (0.001, 0.01, 0.1)
    )
    assert (config.head, config.depth, config.epochs) == ("attentive", 1, 15)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"depth": 2, "head": "linear"}, "depth 2 is of attentive heads only"),
        ({"epochs": 3, "warmup_epochs": [1, 3]}, "3 warm-up epochs do not fit into 3"),
        ({"lr": []}, "lr"),
        ({"lr": [0.0]}, "lr"),
        ({"view_dropout": 1.0}, "view_dropout"),
    ],
)
def test_contradictions_are_refused(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(tree, GridConfig, "grid.yaml")
