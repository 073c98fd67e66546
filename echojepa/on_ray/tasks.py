"""`map` over the cores of a Ray cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import cv2
import ray
from ray.exceptions import OutOfMemoryError, RayTaskError, WorkerCrashedError

from echojepa.errors import ClusterError

_AHEAD_PER_CPU = 3
"""Tasks under way or waiting per core: enough to keep it busy, few enough to hold in memory."""
_MAX_RETRIES = 3


def map_on_ray(function: Callable[[Any], Any], inputs: Iterable[Any]) -> Iterator[Any]:
    """`map`, by the connected cluster; results come in order, and few are held at a time.

    Raises:
        ClusterError: a process was killed, and so were three others that tried again.
        Exception: what `function` raised.
    """
    apply = ray.remote(num_cpus=1, max_retries=_MAX_RETRIES)(_apply)
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
        raise ClusterError(
            "a process was killed, and so were those that tried again",
            "Run the same command again; if memory is short, on a cluster with fewer CPUs.",
        ) from error
