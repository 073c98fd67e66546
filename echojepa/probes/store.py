"""Features on disk: computed once, memory-mapped, resumable, each keyed by its clip.

    FOLDER/
      store.json            what these are features of, and their shape
      00000.safetensors     of the first clips: pooled [n, W, P] float32, and, where they are kept,
                            tokens [n, W, K, D] bfloat16
      00001.safetensors     ...

The clips of a store are in the order of their ids, and a shard holds a fixed range of them. It is
written whole or not at all, so an extraction that was killed goes on with the shards that lack, and
ends with the same bytes. Pooled features are float32: means of many tokens differ from clip to clip
in digits that bfloat16 does not have.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from echojepa.config import to_tree, validate
from echojepa.data.problem import Problem, raise_if_storage_failed
from echojepa.data.sampling import ClipConfig
from echojepa.durable import flush, write_text
from echojepa.errors import ConfigError, StorageError, first_line
from echojepa.models.weights import save_tensors
from echojepa.probes.features import Shape

_FORMAT = 1
_FACTS = "store.json"
_ROWS = "rows"
"""The one key of a shard's metadata: several would be written in any order."""


@dataclass(frozen=True)
class Features:
    """Features of clips by one encoder."""

    clip_ids: list[str]
    problems: list[Problem | None]
    """Why a clip could not be read; None for the others."""
    pooled: NDArray[np.float32]
    """[n, W, P]; NaN where there is a problem."""
    tokens: Tokens | None = None
    """What is kept beside them."""

    def readable(self) -> set[str]:
        """Ids of the clips that could be read."""
        return {c for c, p in zip(self.clip_ids, self.problems, strict=True) if p is None}

    def rows_for(self, clip_ids: Sequence[str]) -> NDArray[np.int64]:
        """Row of every clip id; -1 where there is none."""
        row_of = {clip_id: i for i, clip_id in enumerate(self.clip_ids)}
        return np.array([row_of.get(clip_id, -1) for clip_id in clip_ids], np.int64)

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """One vector per clip, the mean over its windows, [n, P]."""
        return np.asarray(self.pooled[rows].mean(axis=1, dtype=np.float64))


class Tokens:
    """Tokens of clips, which stay on disk until they are asked for."""

    def __init__(self, files: Sequence[Path], shard_rows: int, shape: Shape) -> None:
        self._shards = [safe_open(file, framework="pt") for file in files]
        self._shard_rows = shard_rows
        self.shape = shape

    def __call__(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """Of some clips, [n, W, K, D] float32."""
        shape = self.shape
        found = torch.empty(len(rows), shape.windows, shape.tokens, shape.width)
        shards = rows // self._shard_rows
        for shard in np.unique(shards).tolist():
            here = np.flatnonzero(shards == shard)
            mapped = self._shards[shard].get_tensor("tokens")  # pages are read when they are used
            found[here] = mapped[rows[here] % self._shard_rows].float()
        return found


class FeatureStore:
    """The features of some clips by one encoder, in a folder."""

    def __init__(
        self, folder: Path, clip_ids: Sequence[str], shape: Shape, shard_rows: int
    ) -> None:
        """Describe a store; nothing is written.

        Args:
            clip_ids: in order.
            shape: of the features of one clip.
            shard_rows: clips per shard.
        """
        assert list(clip_ids) == sorted(clip_ids)
        self.folder = folder
        self._clip_ids = list(clip_ids)
        self._shape = shape
        self._shard_rows = shard_rows
        self.num_shards = -(-len(clip_ids) // shard_rows)

    def begin(self, key: Mapping[str, Any], clip: ClipConfig) -> None:
        """Make the folder.

        Args:
            key: what these are features of.
            clip: that the encoder wants.

        Raises:
            StorageError: it cannot be written, or holds features of something else.
        """
        facts = {"format": _FORMAT, "shape": self._shape._asdict(), "clip": to_tree(clip), **key}
        text = json.dumps(facts, indent=1, sort_keys=True)
        file = self.folder / _FACTS
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if file.is_file() and file.read_text() != text:
                raise StorageError(
                    "the folder holds other features", "Choose another.", str(self.folder)
                )
            write_text(file, text)
        except OSError as error:
            raise StorageError(
                f"features cannot be written: {error.strerror}",
                "Choose another folder.",
                str(self.folder),
            ) from None

    def missing(self) -> list[int]:
        """Shards that are not there yet."""
        return [n for n in range(self.num_shards) if not self._file(n).is_file()]

    def rows_of(self, shard: int) -> range:
        """The clips of a shard, by their place in the order."""
        start = shard * self._shard_rows
        return range(start, min(start + self._shard_rows, len(self._clip_ids)))

    def write(self, shard: int, columns: Mapping[str, Any]) -> None:
        """Write a shard, all at once.

        Args:
            columns: clip_id, problem, pooled and, where tokens are kept, tokens as the bits of
                bfloat16; one row per clip of the shard, in its order.

        Raises:
            StorageError: it cannot be written.
        """
        clip_ids = [str(c) for c in columns["clip_id"]]
        assert clip_ids == [self._clip_ids[i] for i in self.rows_of(shard)]
        tensors = {"pooled": torch.from_numpy(np.ascontiguousarray(columns["pooled"]))}
        if self._shape.tokens:
            bits = torch.from_numpy(np.ascontiguousarray(columns["tokens"]))
            tensors["tokens"] = bits.view(torch.bfloat16)
        rows = json.dumps({"clip_id": clip_ids, "problem": [str(p) for p in columns["problem"]]})
        partial = self._file(shard).with_suffix(".partial")
        try:
            save_tensors(tensors, partial, {_ROWS: rows})
            flush(partial)
            partial.replace(self._file(shard))
            flush(self.folder)
        except (OSError, SafetensorError) as error:
            raise StorageError(
                f"features cannot be written: {first_line(error)}",
                "Free space, then run the same command again: it goes on from here.",
                str(self.folder),
            ) from None

    def read(self, shards: Sequence[int] | None = None) -> Features:
        """The features of the clips of some shards, by default of all; tokens stay on disk.

        Raises:
            StorageError: a shard is missing or damaged.
        """
        rows: dict[str, list[str]] = {"clip_id": [], "problem": []}
        pooled = [np.empty((0, self._shape.windows, self._shape.pooled), np.float32)]
        files = [self._file(n) for n in (range(self.num_shards) if shards is None else shards)]
        for file in files:
            try:
                with safe_open(file, framework="pt") as shard:
                    of_shard = json.loads(shard.metadata()[_ROWS])
                    pooled.append(shard.get_tensor("pooled").numpy().copy())
            except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
                raise StorageError(
                    f"features cannot be read ({type(error).__name__})",
                    "Delete the file, and the same command writes it again.",
                    str(file),
                ) from None
            for name, values in rows.items():
                values += of_shard[name]
        return Features(
            clip_ids=rows["clip_id"],
            problems=[Problem.from_text(p) for p in rows["problem"]],
            pooled=np.concatenate(pooled),
            tokens=Tokens(files, self._shard_rows, self._shape) if self._shape.tokens else None,
        )

    def _file(self, shard: int) -> Path:
        return self.folder / f"{shard:05d}.safetensors"


def read_facts(folder: Path) -> tuple[ClipConfig, Shape] | None:
    """The clips that a store's encoder wants and what it gives; None where no store was begun."""
    file = folder / _FACTS
    try:
        facts = json.loads(file.read_text())
        return validate(facts["clip"], ClipConfig, str(file)), Shape(**facts["shape"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise StorageError(
            f"not the facts of a feature store ({type(error).__name__})",
            "Delete the folder, and the same command computes it again.",
            str(file),
        ) from None


def fill(stores: Mapping[str, FeatureStore], blocks: Iterable[Mapping[str, Any]]) -> None:
    """Write what several stores of the same clips lack.

    Never more than one shard is in memory.

    Args:
        stores: by name of the encoder.
        blocks: columns of a `FeatureExtractor`, of the clips of `shards_to_fill` and no others, in
            their order.

    Raises:
        StorageError: the storage of clips fails.
    """
    one = next(iter(stores.values()))
    rows = _rows_of(blocks)
    for shard in shards_to_fill(stores):
        taken = [row for _, row in zip(one.rows_of(shard), rows, strict=False)]
        raise_if_storage_failed(Problem.from_text(str(row["problem"])) for row in taken)
        columns = {name: np.stack([row[name] for row in taken]) for name in taken[0]}
        for name, store in stores.items():
            of_store = {c: columns[c] for c in ("clip_id", "problem")}
            kinds = ("pooled", "tokens")
            of_store |= {k: columns[f"{k}:{name}"] for k in kinds if f"{k}:{name}" in columns}
            store.write(shard, of_store)


def shards_to_fill(stores: Mapping[str, FeatureStore]) -> list[int]:
    """Shards that at least one of the stores lacks."""
    return sorted({shard for store in stores.values() for shard in store.missing()})


def _rows_of(blocks: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for block in blocks:
        for i in range(len(block["clip_id"])):
            yield {name: values[i] for name, values in block.items()}
