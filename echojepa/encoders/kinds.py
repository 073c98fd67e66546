"""Every kind of encoder that a config may name, by its `kind`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from echojepa.encoders.custom import CustomSource
from echojepa.encoders.echofm import EchoFmSource
from echojepa.encoders.echoprime import EchoPrimeSource
from echojepa.encoders.ours import OurSource, UntrainedSource
from echojepa.encoders.panecho import PanEchoSource
from echojepa.encoders.videomae import VideoMaeSource
from echojepa.encoders.vjepa2 import VJepa2Source

AnyEncoder = Annotated[
    OurSource
    | UntrainedSource
    | VJepa2Source
    | VideoMaeSource
    | EchoFmSource
    | PanEchoSource
    | EchoPrimeSource
    | CustomSource,
    Field(discriminator="kind"),
]
"""The type of an encoder in a config."""
