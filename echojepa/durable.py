"""Files that survive a power cut: what a function here has written is on disk when it returns.

A new or renamed file is found after a cut only if its folder was flushed, too (POSIX `fsync`).
"""

from __future__ import annotations

import os
from pathlib import Path


def flush(path: Path) -> None:
    """Wait until the content of a file, or the entries of a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder, if there is none, in one that exists."""
    path.mkdir(exist_ok=True)
    flush(path.parent)


def append_line(file: Path, line: str) -> None:
    """Append a line to a file that may not exist yet."""
    is_new = not file.exists()
    with file.open("a") as opened:
        opened.write(line + "\n")
    flush(file)
    if is_new:
        flush(file.parent)


def write_text(file: Path, text: str) -> None:
    """Write a file, all at once or not at all."""
    write_bytes(file, text.encode())


def write_bytes(file: Path, content: bytes) -> None:
    """The same for what is no text."""
    partial = file.with_name(f".{file.name}.partial")
    partial.write_bytes(content)
    flush(partial)
    partial.replace(file)
    flush(file.parent)
