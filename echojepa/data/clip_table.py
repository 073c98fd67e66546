"""The clip table: the rows one job uses, memory-mapped, and which of them a sample is."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
from numpy.typing import NDArray

from echojepa.data.manifest import (
    STREAM_COLUMNS,
    ClipFilter,
    filter_rows,
    manifest_fingerprint,
    read_manifest,
    ready_to_read,
)
from echojepa.data.mixture import Mixture, MixtureConfig
from echojepa.data.sampling import rows_of
from echojepa.errors import ManifestError
from echojepa.randomness import Seeds

_SIZES = b"clips_per_data_set"


class ClipTable:
    """The rows one job uses, memory-mapped once per node and shared by all of its processes.

    Row `i` (0 to `len - 1`) is the i-th row of the manifest that passes the filter; in a mixture,
    data set by data set.
    """

    def __init__(
        self, table: pa.Table, fingerprint: str, mixture: MixtureConfig | None = None
    ) -> None:
        self.fingerprint = fingerprint
        """Of the manifest file, see `manifest_fingerprint`."""
        self.mixture: Mixture | None = None
        """The data sets, if samples are drawn by shares."""
        self._table = table
        if mixture is not None:
            sizes = json.loads(table.schema.metadata[_SIZES])
            self.mixture = Mixture(mixture.parts(sizes))

    def __len__(self) -> int:
        return len(self._table)

    def row(self, index: int) -> dict[str, Any]:
        """The stream columns of one row."""
        return {name: self._table[name][index].as_py() for name in STREAM_COLUMNS}

    def rows_of(self, s: NDArray[np.int64], seeds: Seeds) -> NDArray[np.int64]:
        """Row for each global sample index: [M] to [M]."""
        if self.mixture is not None:
            return self.mixture.rows(s, seeds)
        return rows_of(s, len(self), seeds)

    def clip_ids(self, indices: NDArray[np.int64]) -> list[str]:
        """Clip ids of rows, in the order asked for."""
        ids: list[str] = self._table["clip_id"].take(pa.array(indices)).to_pylist()
        return ids


def open_clips(
    path: str | Path,
    where: ClipFilter,
    mixture: MixtureConfig | None = None,
    cache: Path | None = None,
) -> ClipTable:
    """Open the filtered stream columns of a manifest as memory-mapped Arrow.

    The conversion runs once per node, into `cache` (default: a folder of this user under the
    system's temporary directory), under a name made of the manifest's fingerprint, the filter and
    the mixture. Relative URIs are taken relative to the manifest.

    Raises:
        ManifestError: the manifest is bad (see `read_manifest`), no row passes the filter, or a
            data set of the mixture has none.
    """
    path = Path(path)
    if not path.is_file():
        read_manifest(path)  # raises the error that says so
    fingerprint = manifest_fingerprint(path)
    mixed = "" if mixture is None else f"|{mixture.model_dump_json()}"
    key = f"{where.model_dump_json()}|{path.resolve().parent}{mixed}|{STREAM_COLUMNS}"
    name = f"{fingerprint[:24]}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.arrow"
    folder = cache or Path(tempfile.gettempdir()) / f"echojepa-clips-{os.getuid()}"
    mapped = folder / name
    if not mapped.is_file():
        table = filter_rows(read_manifest(path), where, str(path))
        metadata = None
        if mixture is not None:
            table, sizes = _by_data_set(table, mixture, str(path))
            metadata = {_SIZES: json.dumps(sizes)}
        _convert(table, path.resolve().parent, metadata, mapped)
    source = pa.memory_map(str(mapped))
    return ClipTable(pa.ipc.open_file(source).read_all(), fingerprint, mixture)


def _by_data_set(
    table: pa.Table, mixture: MixtureConfig, source: str
) -> tuple[pa.Table, dict[str, int]]:
    """The rows data set by data set, in manifest order within each, and how many each has."""
    if mixture.by not in table.column_names:
        raise ManifestError(
            f"there is no column {mixture.by!r} to name data sets; there are {table.column_names}",
            "Name one of them in data.mixture.by.",
            source,
        )
    try:
        names = table[mixture.by].cast(pa.string())
    except pa.ArrowException:
        names = None
    if names is None or pa.types.is_primitive(table[mixture.by].type):
        raise ManifestError(
            f"column {mixture.by!r} holds {table[mixture.by].type}, not names of data sets",
            "Name a text column in data.mixture.by.",
            source,
        )
    tables = {
        name: table.filter(pc.fill_null(pc.equal(names, name), False)) for name in mixture.shares
    }
    for name, rows in tables.items():
        if not len(rows):
            known = sorted(v for v in names.unique().to_pylist() if v is not None)
            raise ManifestError(
                f"no row that passes the filter has {mixture.by} {name!r}; there are {known}",
                "Change data.mixture.shares, data.where or the manifest.",
                source,
            )
    sizes = {name: len(tables[name]) for name in mixture.per_period()}
    return pa.concat_tables([tables[name] for name in sizes]), sizes


def _convert(table: pa.Table, base: Path, metadata: dict[bytes, str] | None, target: Path) -> None:
    columns = ready_to_read(table, base).select(list(STREAM_COLUMNS)).combine_chunks()
    columns = columns.replace_schema_metadata(metadata)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, columns.schema) as writer:
        writer.write_table(columns)
    partial.replace(target)
