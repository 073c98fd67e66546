"""What all commands share: how arguments are called, and where results are printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

out = Console(soft_wrap=True, markup=False, highlight=False)
"""One line is one line and brackets are brackets: paths are printed for scripts to take."""

ConfigFile = Annotated[Path, typer.Argument(help="YAML file; it may extend another.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Settings as key=value.", metavar="[KEY=VALUE]...")
]
Address = Annotated[
    str | None, typer.Option(help="Ray cluster; else $RAY_ADDRESS, else this machine.")
]
