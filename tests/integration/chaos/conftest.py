"""The run that faults strike, what it would have been without them, and the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster
from support.chaos.run import COLUMNS, NUM_STEPS, Judge, Outcome, Run, judged, without_faults
from support.nodes import cluster_of_nodes

Tree = dict[str, Any]


@pytest.fixture(scope="session")
def table() -> Iterator[list[Outcome]]:
    """Collects the rows and prints them."""
    rows: list[Outcome] = []
    yield rows
    print("\n" + COLUMNS)
    for row in rows:
        print(row.row())


@pytest.fixture
def tree(tiny_tree: Tree) -> Tree:
    """40 steps on two workers, a checkpoint every ten; 25 seconds of silence are a hang."""
    tiny_tree["data"]["segment_steps"] = 12
    tiny_tree["loop"] |= {
        "num_steps": NUM_STEPS,
        "log_every_steps": 1,
        "checkpoint_every_steps": 10,
        "image_every_steps": NUM_STEPS,
    }
    tiny_tree["cluster"] = {
        "num_workers": 2,
        "hang_seconds": 25.0,
        "first_step_seconds": 120.0,
    }
    return tiny_tree


@pytest.fixture(scope="session")
def known() -> dict[int, list[float]]:
    return {}


@pytest.fixture
def undisturbed(tree: Tree, tmp_path: Path, known: dict[int, list[float]]) -> list[float]:
    """Losses of the same run in one plain process; computed once for each number of steps."""
    num_steps = tree["loop"]["num_steps"]
    if num_steps not in known:
        known[num_steps] = without_faults(tree, tmp_path)
    return known[num_steps]


@pytest.fixture
def judge(undisturbed: list[float], table: list[Outcome]) -> Judge:
    """`judged`, with what it compares and where it enters the outcome."""
    return partial(judged, undisturbed=undisturbed, table=table)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head with room for one training worker."""
    with cluster_of_nodes() as made:
        yield made


@pytest.fixture
def on_cluster(tree: Tree, tmp_path: Path) -> Iterator[Callable[[str], Run]]:
    """Makes the run on the cluster at an address; ends its drivers."""
    with ExitStack() as stack:
        yield lambda address: stack.enter_context(closing(Run(tree, tmp_path, address)))
