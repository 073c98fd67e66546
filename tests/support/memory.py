"""Memory of processes and of the object store over time, and whether it grows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import psutil
import ray

MIB = 2**20
LEAST_MIB = 64.0
"""A mean below counts as this: a few clips in flight, more or less, are no growth."""


class Memory(threading.Thread):
    """Samples the object store and the largest process of each kind every few seconds."""

    def __init__(self, kinds: Callable[[], dict[str, list[int]]], seconds: float = 5.0) -> None:
        """`kinds` gives the process ids of each kind."""
        super().__init__(daemon=True)
        self._kinds, self._seconds = kinds, seconds
        self.stop = threading.Event()
        self.samples: list[dict[str, float]] = []

    def run(self) -> None:
        while not self.stop.wait(self._seconds):
            found = {"time": time.time()}
            for name, pids in self._kinds().items():
                if pids:
                    found[name] = max(resident_mib(pid) for pid in pids)
            left = ray.available_resources().get("object_store_memory", 0.0)
            found["object store"] = (ray.cluster_resources()["object_store_memory"] - left) / MIB
            self.samples.append(found)

    def growth(self, name: str, since: float) -> tuple[float, float]:
        """Mean in MiB from a time on, and growth by a linear fit, as a share of the mean."""
        points = [(s["time"], s[name]) for s in self.samples if name in s and s["time"] > since]
        times, sizes = np.array(points).T
        slope = np.polyfit(times - times[0], sizes, 1)[0]
        mean = float(sizes.mean())
        return mean, float(slope * (times[-1] - times[0])) / max(mean, LEAST_MIB)


def resident_mib(pid: int) -> float:
    """Resident memory of a process; 0 if it has gone."""
    try:
        return psutil.Process(pid).memory_info().rss / MIB
    except psutil.NoSuchProcess:
        return 0.0
