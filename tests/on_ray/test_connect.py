"""Reaching a cluster, and refusing what it has no room for."""

from __future__ import annotations

import pytest

from echojepa.config import parse
from echojepa.errors import ClusterError, ConfigError
from echojepa.on_ray.connect import ClusterConfig, connected


def test_the_fewest_workers_are_not_more_than_the_most() -> None:
    with pytest.raises(ConfigError, match="max_workers 2 is below 3"):
        parse(["num_workers=3", "max_workers=2"], ClusterConfig)


def test_a_cluster_that_is_not_there_is_named() -> None:
    with (
        pytest.raises(ClusterError, match="no Ray cluster could be reached.*cluster.address"),
        connected(ClusterConfig(address="127.0.0.1:1")),
    ):
        pass
