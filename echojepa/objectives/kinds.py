"""Every kind of objective that a config may name."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from echojepa.config import Strict, validate
from echojepa.objectives.frozen_target import FrozenTargetConfig
from echojepa.objectives.jepa import JepaConfig
from echojepa.objectives.mae import MaeConfig
from echojepa.objectives.supervised import SupervisedConfig

AnyObjective = Annotated[
    JepaConfig | FrozenTargetConfig | MaeConfig | SupervisedConfig, Field(discriminator="kind")
]
"""The type of a config's `objective` section."""
DEFAULT = JepaConfig()


class _Section(Strict):
    objective: AnyObjective


def read_objective(tree: dict[str, Any], where: str) -> AnyObjective:
    """The objective of a run's resolved config; raises `ConfigError` if it is none of ours."""
    return validate({"objective": tree["objective"]}, _Section, where).objective
