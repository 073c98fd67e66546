"""Files that would do something if they were unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Trap:
    """Touches a path when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)
