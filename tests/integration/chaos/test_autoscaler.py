"""Ray's autoscaler brings a node because the group wants to grow, and the group grows onto it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from autoscaling import autoscaling_cluster
from runs import Outcome, Run, judged

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]


def test_the_autoscaler_brings_a_second_node(
    tree: dict[str, Any],
    tmp_path: Path,
    on_cluster: Callable[[str], Run],
    undisturbed: list[float],
    table: list[Outcome],
) -> None:
    """The strike is the start: from there until there is a step by two workers."""
    tree["cluster"] |= {"num_workers": 1, "max_workers": 2, "resize_interval_seconds": 1.0}
    with autoscaling_cluster(tmp_path) as address:
        run = on_cluster(address)
        run.finish(run.until_struck())
    outcome = judged(run, "autoscaler brings a node", undisturbed, table, within=1e-4)
    assert outcome.redone <= 2
    assert [a["world_size"] for a in run.folder.attempts()] == [1, 2]
