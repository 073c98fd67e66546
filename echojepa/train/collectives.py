"""Small host-side collectives over whatever process group there is; alone, they are no-ops.

They run on a gloo group of their own, so that planning and bookkeeping never touch NCCL.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import ArrayLike, NDArray

T = TypeVar("T")


class World(NamedTuple):
    """Which of how many processes this is."""

    rank: int
    size: int


def world() -> World:
    """Which of how many processes this is; the only one without a process group."""
    if not dist.is_initialized():
        return World(0, 1)
    return World(dist.get_rank(), dist.get_world_size())


def broadcast(value: T) -> T:
    """Rank 0's value, on every rank."""
    if world().size == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=_host_group())
    return box[0]


def gather(value: T) -> list[T]:
    """Every rank's value, in rank order, on every rank."""
    if world().size == 1:
        return [value]
    found: list[Any] = [None] * world().size
    dist.all_gather_object(found, value, group=_host_group())
    return found


def total(values: ArrayLike) -> NDArray[np.float64]:
    """Element-wise sum over ranks, in float64."""
    summed = torch.from_numpy(np.array(values, np.float64, ndmin=1))
    if world().size > 1:
        dist.all_reduce(summed, group=_host_group())
    return np.asarray(summed.numpy())


def barrier() -> None:
    """Wait until every rank is here."""
    total(0.0)


@cache
def _host_group() -> Any:
    return dist.new_group(backend="gloo")
