"""Processes of this machine's test cluster, for tests that strike them."""

from __future__ import annotations

from ray.util.state import list_actors


def pids(actor_class: str) -> list[int]:
    """Processes of the living actors of a class."""
    filters = [("class_name", "=", actor_class), ("state", "=", "ALIVE")]
    return [actor.pid for actor in list_actors(filters=filters)]
