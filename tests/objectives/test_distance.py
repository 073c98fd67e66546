"""Distances to what is hidden, against a loop over all pairs."""

from __future__ import annotations

import math

import pytest
import torch

from echojepa.models.attention import Grid
from echojepa.objectives.distance import distance_weights


def by_hand(keep: list[int], hidden: list[int], grid: Grid) -> list[float]:
    """One token after the other."""

    def position(token: int) -> tuple[int, int, int]:
        cell = token % (grid.rows * grid.columns)
        return token // (grid.rows * grid.columns), cell // grid.columns, cell % grid.columns

    nearest = [min(math.dist(position(one), position(other)) for other in hidden) for one in keep]
    return [1 / math.sqrt(distance) for distance in nearest]


@pytest.mark.parametrize("grid", [Grid(3, 4, 5), Grid(1, 1, 9), Grid(4, 7, 2)])
@pytest.mark.parametrize("num_hidden", [1, 4])
def test_every_visible_token_is_weighted_by_its_nearest_hidden_one(
    grid: Grid, num_hidden: int
) -> None:
    order = torch.stack([torch.randperm(grid.num_tokens) for _ in range(3)])
    hidden, keep = order[:, :num_hidden], order[:, num_hidden:]
    found = distance_weights(keep, hidden, grid)
    for row in range(3):
        wanted = by_hand(keep[row].tolist(), hidden[row].tolist(), grid)
        torch.testing.assert_close(found[row], torch.tensor(wanted))


def test_neighbours_count_whole() -> None:
    weights = distance_weights(torch.tensor([[1, 4]]), torch.tensor([[0]]), Grid(1, 1, 5))
    assert weights.tolist() == [[1.0, 0.5]]
