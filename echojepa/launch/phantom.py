"""Phantom studies and their gallery, written by all cores of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from echojepa.on_ray.connect import ClusterConfig, connected
from echojepa.on_ray.tasks import map_on_ray
from echojepa.phantom import PhantomConfig, write_gallery, write_phantom


def launch(config: PhantomConfig, out: Path, cluster: ClusterConfig) -> Path:
    """Write a phantom with a progress bar; return the manifest's path.

    On more than one node, `out` must be a folder that all of them share.

    Raises:
        PhantomError: as `write_phantom`.
        ClusterError: there is no cluster at the address, or a process was killed again and again.
    """
    with connected(cluster), Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("studies", total=config.num_studies)
        return write_phantom(
            config,
            out.resolve(),
            map_on_ray,
            progress=lambda done, _: bar.update(task, completed=done),
        )


def launch_gallery(config: PhantomConfig, out: Path, cluster: ClusterConfig) -> Path:
    """Write a gallery page with a progress bar; return its path.

    Raises:
        PhantomError: as `write_gallery`.
        ClusterError: there is no cluster at the address, or a process was killed again and again.
    """
    with connected(cluster), Progress(console=Console(stderr=True)) as bar:

        def mapped(function: Callable[[Any], str], exhibits: Iterable[Any]) -> Iterable[str]:
            shown = list(exhibits)
            return bar.track(map_on_ray(function, shown), len(shown), description="exhibits")

        return write_gallery(config, out, mapped)
