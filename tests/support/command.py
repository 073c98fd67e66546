"""The installed command, as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def echojepa(*arguments: object, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, on no cluster but one it starts itself."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.run(
        [str(Path(sys.executable).parent / "echojepa"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=environment,
    )
