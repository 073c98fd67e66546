"""From rows of a manifest to features on disk: what is there already is not computed again.

The plan is made here; who decodes and encodes, and where, is an `Executor`'s business.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
from pydantic import Field

from echojepa.config import Strict, to_tree
from echojepa.data.decode.frames import ReadConfig
from echojepa.data.manifest.schema import STREAM_COLUMNS
from echojepa.data.sampling import ClipConfig
from echojepa.encoders.source import Source
from echojepa.errors import StorageError, UserError
from echojepa.probes.features import (
    ClipLoader,
    FeatureConfig,
    FeatureExtractor,
    Shape,
    TokenConfig,
    Worsening,
    described,
)
from echojepa.probes.store import FeatureStore, fill, read_facts, shards_to_fill

Columns = dict[str, Any]
Loader = Callable[[list[dict[str, Any]]], Columns]
Extractor = Callable[[Mapping[str, Any]], Columns]
_BLOCK_BYTES = 64 * 2**20


class ExtractConfig(Strict):
    """How features of videos are computed and kept."""

    features: FeatureConfig = FeatureConfig()
    """How a video becomes one vector of features."""
    tokens: TokenConfig = TokenConfig()
    """What is kept beside it."""
    read: ReadConfig = ReadConfig()
    """How the files of clips are read."""
    max_feature_bytes: int = Field(64 * 2**30, gt=0)
    """More than this is not written to disk; the size is known before anything is computed."""
    shard_rows: int = Field(256, gt=0)
    """Clips per file of features."""


class Executor(Protocol):
    """Where the work is done: a cluster, or this process."""

    def map(self, function: Callable[[Any], Any], inputs: Iterable[Any]) -> Iterator[Any]:
        """Results in order."""

    def extract(
        self, blocks: Sequence[pa.Table], load: Loader, build: Callable[[], Extractor]
    ) -> Iterator[Columns]:
        """Decode and encode blocks of rows; their columns in order.

        Args:
            load: rows to clips.
            build: makes what turns clips into features, in each process that does.
        """


@dataclass(frozen=True)
class Extracted:
    """What came of it."""

    stores: dict[str, FeatureStore] = field(default_factory=dict)
    """By encoder, complete."""
    failed: dict[str, UserError] = field(default_factory=dict)
    """Encoders that could not be used, and why; they do not cost the others."""

    def only(self) -> FeatureStore:
        """What came of a single encoder.

        Raises:
            UserError: why it could not be used.
        """
        for error in self.failed.values():
            raise error
        (store,) = self.stores.values()
        return store


class _Pass(NamedTuple):
    """One encoder's part of an extraction."""

    source: Source
    key: dict[str, Any]
    folder: Path
    clip: ClipConfig
    shape: Shape


def extract(
    rows: pa.Table,
    sources: Mapping[str, Source],
    config: ExtractConfig,
    folder: Path,
    executor: Executor,
    worsening: Worsening | None = None,
) -> Extracted:
    """Features of every row by every encoder, in stores inside `folder`.

    Encoders that want the same clips share one decoding.

    Raises:
        StorageError: they would be too large, or storage fails.
    """
    rows = rows.sort_by("clip_id")
    passes, failed = _passes(rows, sources, config, folder, executor, worsening)
    _check_size(passes, len(rows), config.max_feature_bytes)
    clip_ids = rows["clip_id"].to_pylist()
    stores = {
        name: FeatureStore(one.folder, clip_ids, one.shape, config.shard_rows)
        for name, one in passes.items()
    }
    for name, store in stores.items():
        store.begin(passes[name].key, passes[name].clip)
    for clip in dict.fromkeys(one.clip for one in passes.values()):
        used = {name: one.source for name, one in passes.items() if one.clip == clip}
        group = {name: stores[name] for name in used}
        blocks = _blocks(rows, group, config.features.windows * clip.num_bytes)
        if blocks:
            load = ClipLoader(clip, config.features, config.read, worsening)
            build = partial(FeatureExtractor, used, config.features, config.tokens)
            fill(group, executor.extract(blocks, load, build))
    return Extracted(stores, failed)


def _passes(
    rows: pa.Table,
    sources: Mapping[str, Source],
    config: ExtractConfig,
    folder: Path,
    executor: Executor,
    worsening: Worsening | None,
) -> tuple[dict[str, _Pass], dict[str, UserError]]:
    """What each encoder is asked for; and those that cannot be used."""
    shared = {
        "rows": _digest_of(rows),
        "shard_rows": config.shard_rows,
        "worsening": None if worsening is None else to_tree(worsening),
        **{name: to_tree(getattr(config, name)) for name in ("features", "tokens", "read")},
    }
    keys, folders = {}, {}
    for name, source in sources.items():
        keys[name] = {**shared, "encoder": to_tree(source), "weights": source.digest()}
        folders[name] = folder / _fingerprint(keys[name])
    facts: dict[str, Any] = {name: read_facts(folders[name]) for name in sources}
    new = [name for name in sources if facts[name] is None]
    describe = partial(_described, how=config.features, tokens=config.tokens)
    facts |= zip(new, executor.map(describe, [sources[name] for name in new]), strict=True)
    failed = {name: said for name, said in facts.items() if isinstance(said, UserError)}
    passes = {
        name: _Pass(sources[name], keys[name], folders[name], *facts[name])
        for name in sources
        if name not in failed
    }
    return passes, failed


def _described(
    source: Source, how: FeatureConfig, tokens: TokenConfig
) -> tuple[ClipConfig, Shape] | UserError:
    try:
        return described(source, how, tokens)
    except UserError as error:
        return error


def _check_size(passes: Mapping[str, _Pass], num_rows: int, max_bytes: int) -> None:
    sizes = {name: one.shape.num_bytes * num_rows for name, one in passes.items()}
    if sum(sizes.values()) > max_bytes:
        shown = ", ".join(f"{name!r} {size / 2**30:.3g} GiB" for name, size in sizes.items())
        raise StorageError(
            f"features of {num_rows} clips take more than {max_bytes / 2**30:.3g} GiB: {shown}",
            "Set tokens.keep to grid or pooled, or raise max_feature_bytes.",
            "max_feature_bytes",
        )


def _blocks(rows: pa.Table, stores: Mapping[str, FeatureStore], row_bytes: int) -> list[pa.Table]:
    """The rows of missing shards in blocks of some 64 MiB of pixels, none across two shards.

    So an encoder always sees the same clips together, whatever was there before.
    """
    size = max(1, _BLOCK_BYTES // row_bytes)
    one = next(iter(stores.values()))
    return [
        rows.slice(start, min(size, shard.stop - start))
        for shard in map(one.rows_of, shards_to_fill(stores))
        for start in range(shard.start, shard.stop, size)
    ]


def _digest_of(rows: pa.Table) -> str:
    """Of what is read of the rows; labels are not."""
    digest = hashlib.sha256()
    for line in rows.select(STREAM_COLUMNS).to_pylist():
        digest.update(json.dumps(line, sort_keys=True).encode())
    return digest.hexdigest()


def _fingerprint(key: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
