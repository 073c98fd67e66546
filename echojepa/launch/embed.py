"""Embeddings on Ray."""

from __future__ import annotations

from pydantic import Field

from echojepa.embed import EmbedConfig, embed
from echojepa.on_ray.connect import ClusterConfig, connected
from echojepa.on_ray.stream import ClusterExecutor


class EmbedJob(EmbedConfig):
    """What to embed, and where it is done."""

    cluster: ClusterConfig = ClusterConfig()
    """The cluster that encodes the clips."""
    cpus_per_actor: float = Field(1.0, gt=0)
    """CPUs one encoding actor reserves."""


def launch(job: EmbedJob) -> tuple[int, int]:
    """Write embeddings; see `embed`."""
    with connected(job.cluster):
        return embed(job, ClusterExecutor(job.cpus_per_actor))
