"""Embeddings on Ray."""

from __future__ import annotations

from echojepa.embed import EmbedConfig, embed
from echojepa.launch.extraction import ExtractionJob


class EmbedJob(ExtractionJob, EmbedConfig):
    """What to embed, and where it is done."""


def launch(job: EmbedJob) -> tuple[int, int]:
    """Write embeddings; see `embed`."""
    with job.executor() as executor:
        return embed(job, executor)
