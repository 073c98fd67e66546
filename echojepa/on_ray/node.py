"""What one node of the cluster sees of a job. Runs there as a Ray task, without PyTorch."""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from echojepa.data.block import BlockDecoder, DataConfig
from echojepa.data.node_cache import known_fingerprint, node_folder
from echojepa.data.problem import Problem
from echojepa.errors import UserError
from echojepa.randomness import Seeds
from echojepa.runs.folder import installed_versions

_SHM = "/dev/shm"


@dataclass(frozen=True)
class NodeReport:
    """One node's view."""

    host: str
    versions: dict[str, str]
    sees_run: bool
    """The file that the driver has just written is there."""
    free_bytes: int
    """On the storage of the run folder."""
    fingerprint: str
    """Of the manifest; or why it cannot be read."""
    object_store_bytes: int = 0
    """Of Ray's object store there."""
    shm_bytes: int | None = None
    """Of the shared memory that should hold it; None where there is no /dev/shm."""


def look(run_dir: str, token: str, manifest: str, object_store_bytes: int = 0) -> NodeReport:
    """Report on this node."""
    sees_run = Path(token).is_file()
    try:
        fingerprint = known_fingerprint(Path(manifest), node_folder())
    except (UserError, OSError) as error:
        fingerprint = str(error)
    return NodeReport(
        host=platform.node(),
        versions={"python": platform.python_version(), **installed_versions()},
        sees_run=sees_run,
        free_bytes=shutil.disk_usage(run_dir).free if sees_run else 0,
        fingerprint=fingerprint,
        object_store_bytes=object_store_bytes,
        shm_bytes=shutil.disk_usage(_SHM).total if Path(_SHM).is_dir() else None,
    )


def decode_first(data: DataConfig, seeds: Seeds, first: int, number: int) -> list[Problem | None]:
    """Problems with the first clips of a run; None for a good clip."""
    block = BlockDecoder(data, seeds)(np.arange(first, first + number))
    return [Problem.from_text(str(text)) for text in block["problem"]]
