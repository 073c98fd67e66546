"""Processes of this machine's test cluster, for tests that strike them."""

from __future__ import annotations

from ray.util.state import list_actors, list_tasks


def pids(actor_class: str) -> list[int]:
    """Processes of the living actors of a class."""
    filters = [("class_name", "=", actor_class), ("state", "=", "ALIVE")]
    return [actor.pid for actor in list_actors(filters=filters)]


def task_pids(function: str) -> list[int]:
    """Processes in which a remote function is running."""
    filters = [("name", "=", function), ("state", "=", "RUNNING")]
    tasks = list_tasks(filters=filters, detail=True)
    return [task.worker_pid for task in tasks if task.worker_pid]
