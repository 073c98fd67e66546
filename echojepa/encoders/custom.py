"""A user's own encoder, named by a Python path.

    encoders:
      - {kind: custom, factory: my_package.echo:build, settings: {weights: echo.pt}}

    # my_package/echo.py
    def build(weights: str) -> FrozenEncoder: ...

The module is imported wherever the encoder runs, so it must be installed there.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue

from echojepa.data.sampling import ClipConfig
from echojepa.encoders.frozen import FrozenEncoder
from echojepa.encoders.source import Source
from echojepa.errors import ConfigError, first_line

_OWN = ("precision", "random_seed")
"""Settings of every encoder that only the factory can obey."""


class CustomSource(Source):
    """What a Python function returns."""

    kind: Literal["custom"] = "custom"
    factory: str = Field(pattern=r"^\w+(\.\w+)*:\w+$")
    """Python path of the function, `package.module:function`. It returns a `FrozenEncoder`."""
    settings: dict[str, JsonValue] = Field({})
    """Its arguments. `random_seed` and `precision` are passed on where they are set and not the
    default; then it must have an argument of that name."""

    def origin(self) -> Path | None:
        """The file of the function's module, if it can be found."""
        try:
            found = importlib.util.find_spec(self.factory.partition(":")[0])
        except ImportError:
            return None
        return Path(found.origin) if found is not None and found.origin is not None else None

    def load(self) -> FrozenEncoder:
        """See `EncoderSource`.

        Raises:
            ConfigError: there is no such function, it does not take these arguments, or what it
                returns is no encoder.
        """
        factory = self._function()
        arguments = self._arguments(factory)
        encoder = factory(**arguments)
        clip, encode = getattr(encoder, "clip", None), getattr(encoder, "encode", None)
        if isinstance(encoder, type) or not isinstance(clip, ClipConfig) or not callable(encode):
            raise ConfigError(
                f"it returns {encoder!r:.80}, which is no encoder",
                "Return an object with `clip`, a ClipConfig, and a method `encode`; see "
                "echojepa.encoders.frozen.FrozenEncoder.",
                self.factory,
            )
        found: FrozenEncoder = encoder
        return found

    def _function(self) -> Callable[..., Any]:
        module, _, name = self.factory.partition(":")
        try:
            function = getattr(importlib.import_module(module), name, None)
        except (ImportError, SyntaxError) as error:
            raise ConfigError(
                f"the module cannot be imported: {first_line(error)}",
                "Install it wherever encoders run, or put its folder on PYTHONPATH.",
                self.factory,
            ) from None
        if not callable(function):
            raise ConfigError(
                f"the module {module} has no function {name!r}",
                "Write package.module:function.",
                self.factory,
            )
        found: Callable[..., Any] = function
        return found

    def _arguments(self, factory: Callable[..., Any]) -> dict[str, Any]:
        """What the factory is called with; what it would not take is refused before."""
        arguments: dict[str, Any] = dict(self.settings)
        try:
            signature = inspect.signature(factory)
        except ValueError as error:
            raise ConfigError(f"{error}", "Write it in Python.", self.factory) from None
        for name in _OWN:
            value = getattr(self, name)
            if value == type(self).model_fields[name].default:
                continue
            if name not in signature.parameters or name in arguments:
                raise ConfigError(
                    f"{name} = {value!r} cannot be passed on",
                    f"Give the function an argument {name}, and set it beside `settings` alone.",
                    self.factory,
                )
            arguments[name] = value
        try:
            signature.bind(**arguments)
        except TypeError as error:
            raise ConfigError(
                f"the function does not take these settings: {error}",
                "Set its arguments under `settings`.",
                self.factory,
            ) from None
        return arguments
