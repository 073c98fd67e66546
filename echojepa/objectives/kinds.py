"""Every kind of objective that a config may name."""

from __future__ import annotations

from echojepa.objectives.jepa import JepaConfig

AnyObjective = JepaConfig
"""The type of a config's `objective` section."""
DEFAULT = JepaConfig()
