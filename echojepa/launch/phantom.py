"""Phantom studies and their gallery, written by all cores of a Ray cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import ray
from ray.exceptions import OutOfMemoryError, RayTaskError, WorkerCrashedError
from rich.console import Console
from rich.progress import Progress

from echojepa.errors import PhantomError
from echojepa.on_ray.connect import ClusterConfig, connected
from echojepa.phantom import PhantomConfig, write_gallery, write_phantom

_AHEAD_PER_CPU = 3
"""Tasks under way or waiting per core: enough to keep it busy, few enough to hold in memory."""


def run(config: PhantomConfig, out: Path, cluster: ClusterConfig) -> Path:
    """Write a phantom with a progress bar; return the manifest's path.

    On more than one node, `out` must be a folder that all of them share.

    Raises:
        PhantomError: as `write_phantom`, or a process was killed again and again.
        ClusterError: there is no cluster at the address.
    """
    with connected(cluster), Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("studies", total=config.num_studies)
        return write_phantom(
            config,
            out.resolve(),
            map_on_ray,
            progress=lambda done, _: bar.update(task, completed=done),
        )


def run_gallery(config: PhantomConfig, out: Path, cluster: ClusterConfig) -> Path:
    """Write a gallery page with a progress bar; return its path.

    Raises:
        PhantomError: as `write_gallery`, or a process was killed again and again.
        ClusterError: there is no cluster at the address.
    """
    with connected(cluster), Progress(console=Console(stderr=True)) as bar:

        def mapped(function: Callable[[Any], str], exhibits: Iterable[Any]) -> Iterable[str]:
            shown = list(exhibits)
            return bar.track(map_on_ray(function, shown), len(shown), description="exhibits")

        return write_gallery(config, out, mapped)


def map_on_ray(function: Callable[[Any], Any], inputs: Iterable[Any]) -> Iterator[Any]:
    """`map`, by the connected cluster; results come in order and are never piled up.

    Raises:
        PhantomError: a process was killed, and so were three others that tried again.
        Exception: what `function` raised.
    """
    apply = ray.remote(num_cpus=1, max_retries=3)(_apply)
    ahead = _AHEAD_PER_CPU * max(int(ray.cluster_resources().get("CPU", 1)), 1)
    pending: deque[ray.ObjectRef[Any]] = deque()
    reference = ray.put(function)
    for one in inputs:
        pending.append(apply.remote(reference, one))
        if len(pending) >= ahead:
            yield _result(pending.popleft())
    while pending:
        yield _result(pending.popleft())


def _apply(function: Callable[[Any], Any], one: Any) -> Any:
    cv2.setNumThreads(1)
    return function(one)


def _result(reference: ray.ObjectRef[Any]) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise error.cause from error
    except (WorkerCrashedError, OutOfMemoryError) as error:
        raise PhantomError(
            "a process that rendered clips was killed, and so were those that tried again",
            "Call again to resume; if memory is short, on a cluster with fewer CPUs.",
        ) from error
