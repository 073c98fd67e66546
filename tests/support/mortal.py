"""An encoder whose process is killed in the middle of its work, and that waits to be let go on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from echojepa.encoders.frozen import FrozenEncoder, PooledFeatures, TokenFeatures
from echojepa.encoders.ours import OurSource

DIED, GO_ON = "died", "go on"
_WAIT_SECONDS = 120


class Mortal:
    """Dies at its second batch, once; waits at its third until it may go on."""

    def __init__(self, encoder: FrozenEncoder, folder: Path) -> None:
        self.clip = encoder.clip
        self._encoder = encoder
        self._folder = folder
        self._num_batches = 0

    def encode(self, clips: NDArray[np.uint8]) -> TokenFeatures | PooledFeatures:
        self._num_batches += bool(clips.any())  # it is first shown a black one
        if self._num_batches == 2 and not (self._folder / DIED).exists():
            (self._folder / DIED).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        for _ in range(_WAIT_SECONDS * 10):
            if self._num_batches < 3 or (self._folder / GO_ON).exists():
                break
            time.sleep(0.1)
        return self._encoder.encode(clips)


def build(encoder: str, folder: str) -> Mortal:
    """The encoder of a folder; whether it has died, and may go on, stands in another."""
    return Mortal(OurSource(path=encoder).load(), Path(folder))
