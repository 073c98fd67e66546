"""What jobs that encode clips on a cluster have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import Field

from echojepa.config import Strict
from echojepa.on_ray.connect import ClusterConfig, connected
from echojepa.on_ray.stream import ClusterExecutor


class ExtractionJob(Strict):
    """Where clips are encoded."""

    cluster: ClusterConfig = ClusterConfig()
    """The cluster that encodes the clips."""
    cpus_per_actor: float = Field(1.0, gt=0)
    """CPUs one encoding actor reserves."""

    @contextmanager
    def executor(self) -> Iterator[ClusterExecutor]:
        """On the cluster, which is there meanwhile."""
        with connected(self.cluster):
            yield ClusterExecutor(self.cpus_per_actor)
