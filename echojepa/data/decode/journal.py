"""Which sample a decode process was busy with when it died.

A codec that segfaults takes its process with it, and Ray retries the block forever. Every decode
process therefore writes the index it is about to decode into a small file of its own; a successor
that finds the same index in the files of two dead processes reports the clip as an error instead of
dying a third time. One death proves nothing: it may have been a spot node or the OOM killer.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from pathlib import Path

from echojepa.errors import ClipError

_IDLE = -1
_FORMAT = struct.Struct("<q")
MAX_DEATHS = 2


class CrashJournal:
    """The journal of this process inside `folder`, which all decode processes of a node share."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._deaths = Counter(_last_words(folder))
        self._file = os.open(folder / f"{os.getpid()}.sample", os.O_CREAT | os.O_WRONLY, 0o600)
        self.end()

    def begin(self, s: int) -> None:
        """Note that sample `s` is about to be decoded.

        Raises:
            ClipError: two processes have died on it.
        """
        if self._deaths[s] >= MAX_DEATHS:
            raise ClipError("decode", "crash", f"{MAX_DEATHS} decode processes died on this clip")
        os.pwrite(self._file, _FORMAT.pack(s), 0)

    def end(self) -> None:
        """Note that nothing is being decoded."""
        os.pwrite(self._file, _FORMAT.pack(_IDLE), 0)


def _last_words(folder: Path) -> list[int]:
    """Samples that processes which no longer run were busy with."""
    samples = []
    for file in folder.glob("*.sample"):
        content = file.read_bytes()
        if not Path(f"/proc/{file.stem}").exists() and len(content) == _FORMAT.size:
            samples.append(_FORMAT.unpack(content)[0])
    return [s for s in samples if s != _IDLE]
