"""Model state on disk: flat float32 shards in safetensors files that any world size can read.

Every rank writes one file with the part of every flattened tensor that it holds; the file's header
says where each part begins. A reader asks for any range of any tensor and gets it from whichever
files hold it, memory-mapped. No pickled object is written or read, and neither direction needs
communication, so a checkpoint of n ranks is read by m ranks or by one process without a group.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from echojepa.errors import CheckpointError
from echojepa.models.weights import save_tensors
from echojepa.train.engine import Shard, Shards

_PARTS = "layout"
"""Key of the header under which a file says where its parts begin."""
_PATTERN = "shard_{rank:05d}_of_{world:05d}.safetensors"


def write_shards(folder: Path, shards: Shards, rank: int, world_size: int) -> Path:
    """Write this rank's shards into `folder`; returns the file."""
    file = folder / _PATTERN.format(rank=rank, world=world_size)
    parts = {key: {"start": s.start, "shape": list(s.shape)} for key, s in shards.items()}
    tensors = {key: s.data.detach().cpu().contiguous() for key, s in shards.items()}
    save_tensors(tensors, file, {_PARTS: json.dumps(parts)})
    return file


class ShardReader:
    """Random access to all tensors of a folder of shard files; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._parts: dict[str, list[tuple[int, int, Any]]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        """Shape of every whole tensor."""

    def __enter__(self) -> ShardReader:
        files = sorted(self._folder.glob("shard_*.safetensors"))
        if not files:
            raise CheckpointError(
                "the folder holds no shard files", "Name a checkpoint folder.", str(self._folder)
            )
        try:
            for file in files:
                self._index(self._stack.enter_context(safe_open(file, framework="pt")))
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise self._damaged(error) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, key: str, start: int, stop: int) -> torch.Tensor:
        """Elements [start, stop) of the flattened tensor `key`, float32.

        Raises:
            CheckpointError: the tensor, or part of the range, is not there.
        """
        out = torch.empty(max(0, stop - start))
        filled = 0
        for first, last, opened in self._parts.get(key, ()):
            low, high = max(start, first), min(stop, last)
            if low < high:
                out[low - start : high - start] = opened.get_slice(key)[low - first : high - first]
                filled += high - low
        if key not in self.shapes or filled != len(out):
            raise self._damaged(f"{key}: {filled} of {len(out)} elements found")
        return out

    def whole(self, key: str) -> torch.Tensor:
        """A whole tensor in its own shape, float32."""
        shape = self.shapes.get(key, ())
        return self.read(key, 0, math.prod(shape)).reshape(shape)

    def _index(self, opened: Any) -> None:
        for key, part in json.loads(opened.metadata()[_PARTS]).items():
            start, length = int(part["start"]), opened.get_slice(key).get_shape()[0]
            self._parts.setdefault(key, []).append((start, start + length, opened))
            self.shapes[key] = tuple(part["shape"])

    def _damaged(self, reason: object) -> CheckpointError:
        return CheckpointError(
            f"shard files cannot be read: {reason}", "Use another checkpoint.", str(self._folder)
        )


def without(shards: Shards, prefixes: tuple[str, ...]) -> Shards:
    """The state of those parameters whose names begin otherwise: what a checkpoint holds."""
    return {k: s for k, s in shards.items() if not k.partition("/")[2].startswith(prefixes)}


def reshard(reader: ShardReader, like: Shards) -> Shards:
    """The stored state, cut as `like` is cut.

    Raises:
        CheckpointError: names or shapes differ: another architecture.
    """
    _check_architecture(reader, {key: shard.shape for key, shard in like.items()})
    out = {}
    for key, shard in like.items():
        data = reader.read(key, shard.start, shard.start + len(shard.data))
        out[key] = Shard(data, shard.start, shard.shape)
    return out


def _check_architecture(reader: ShardReader, wanted: Mapping[str, tuple[int, ...]]) -> None:
    found = reader.shapes
    missing = sorted(set(wanted) - set(found))
    unexpected = sorted(set(found) - set(wanted))
    differing = [k for k in wanted if k in found and tuple(wanted[k]) != found[k]]
    problems = []
    if missing:
        problems.append(f"{len(missing)} missing (first: {missing[0]})")
    if unexpected:
        problems.append(f"{len(unexpected)} unexpected (first: {unexpected[0]})")
    if differing:
        key = differing[0]
        problems.append(
            f"{len(differing)} of another shape ({key}: {found[key]}, not {wanted[key]})"
        )
    if problems:
        raise CheckpointError(
            f"the checkpoint is of another architecture: {'; '.join(problems)}",
            "Give the run a folder of its own, or the model of the checkpoint.",
            str(reader._folder),
        )
