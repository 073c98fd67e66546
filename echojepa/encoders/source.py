"""Where a frozen encoder comes from, and how it runs: what the settings of all kinds share.

A source is a small picklable config, which any process can turn into the encoder. The network of
every kind takes uint8 RGB clips [B, T, H, W, 3] and owns its preprocessing.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from echojepa.config import Strict
from echojepa.data.sampling import ClipConfig
from echojepa.encoders.frozen import FrozenEncoder, PooledFeatures, TokenFeatures
from echojepa.models.weights import fill

Network = TypeVar("Network", bound=nn.Module)


class Source(Strict):
    """Settings that every kind of encoder has."""

    batch: int = Field(8, gt=0)
    """Clips per forward pass."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Of the forward pass: float32, the same with faster and coarser products on GPUs, or bfloat16
    where PyTorch's autocast uses it."""
    random_seed: int | None = Field(None, ge=0)
    """Draw the weights from this seed: the same architecture, untrained. What the file says of the
    architecture is still read."""

    @abstractmethod
    def load(self) -> FrozenEncoder:
        """See `EncoderSource`."""

    location: ClassVar[str | None] = None
    """The setting that names its file or folder, if there is one."""

    def origin(self) -> Path | None:
        """The file or folder whose content decides what the encoder is, if there is one."""
        return None if self.location is None else Path(getattr(self, self.location))

    def at(self, origin: Path) -> Self:
        """The same, in another place; of a source that has a location."""
        assert self.location is not None
        return self.model_copy(update={self.location: str(origin)})

    @property
    def untrained(self) -> bool:
        """Whether its weights are random."""
        return self.random_seed is not None

    def digest(self) -> str:
        """SHA-256 of that content; of a folder, of its weights and settings."""
        origin = self.origin()
        if origin is not None and origin.is_dir():
            files = [f for f in sorted(origin.iterdir()) if f.suffix in (".safetensors", ".json")]
        else:
            files = [origin] if origin is not None and origin.is_file() else []
        stats = [file.stat() for file in files]
        return _digest_of(
            tuple((f, s.st_size, s.st_mtime_ns) for f, s in zip(files, stats, strict=True))
        )

    def filled(
        self, build: Callable[[], Network], weights: Mapping[str, torch.Tensor], where: str
    ) -> Network:
        """A network with the weights of a file, every one of them, or with random ones.

        Args:
            build: makes the network with its initial weights.
            weights: state dict of the network; what belongs to other parts of the file is not in
                it.
            where: the file, for errors.

        Raises:
            CheckpointError: names the missing, unexpected and mis-shaped tensors.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.random_seed or 0)
            network = build()
        if self.random_seed is None:
            fill(network, dict(weights), Path(where))
        return network


@lru_cache(maxsize=64)  # weights are large, and suites ask often
def _digest_of(files: tuple[tuple[Path, int, int], ...]) -> str:
    """SHA-256 of names and contents; sizes and times tell a changed file from a known one."""
    digest = hashlib.sha256()
    for file, _, _ in files:
        digest.update(file.name.encode())
        with file.open("rb") as opened:
            while chunk := opened.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


class NetworkEncoder:
    """A network as a `FrozenEncoder`: on this process's device, in one of the precisions."""

    def __init__(
        self,
        network: nn.Module,
        clip: ClipConfig,
        precision: Literal["float32", "tf32", "bfloat16"] = "float32",
    ) -> None:
        """Move the network to a GPU, if there is one.

        Args:
            network: from uint8 clips [B, T, H, W, 3] to `TokenFeatures` or `PooledFeatures`.
            clip: frames, rate and size of the clips it wants.
            precision: of its forward pass.
        """
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = network.eval().requires_grad_(False).to(self._device)
        self.clip = clip
        self._precision = precision

    @torch.inference_mode()
    def encode(self, clips: NDArray[np.uint8]) -> TokenFeatures | PooledFeatures:
        """See `FrozenEncoder`."""
        torch.set_float32_matmul_precision("high" if self._precision == "tf32" else "highest")
        half = self._precision == "bfloat16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=half):
            # Arrays from shared memory are read-only, which PyTorch does not know.
            pixels = torch.from_numpy(np.require(clips, requirements="W"))
            features: TokenFeatures | PooledFeatures = self.network(pixels.to(self._device))
        return features
