"""The clip table: the rows one job uses, memory-mapped, and which of them a sample is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from echojepa.data.clip_convert import BATCH_ROWS, SIZES, Conversion, convert
from echojepa.data.manifest.schema import STREAM_COLUMNS, ClipFilter
from echojepa.data.mixture import Mixture, MixtureConfig
from echojepa.data.node_cache import known_fingerprint, locked, node_folder
from echojepa.data.sampling import rows_of
from echojepa.randomness import Seeds


class ClipTable:
    """The rows one job uses, memory-mapped once per node and shared by all of its processes.

    Row `i` (0 to `len - 1`) is the i-th row of the manifest that passes the filter; in a mixture,
    data set by data set.
    """

    def __init__(
        self, mapped: Path, fingerprint: str, mixture: MixtureConfig | None = None
    ) -> None:
        """Map an Arrow file that `clip_convert` wrote."""
        self.fingerprint = fingerprint
        """Of the manifest file, see `manifest_fingerprint`."""
        self.mixture: Mixture | None = None
        """The data sets, if samples are drawn by shares."""
        self._file = pa.ipc.open_file(pa.memory_map(str(mapped)))
        last = self._file.num_record_batches - 1
        self._len: int = last * BATCH_ROWS + self._file.get_batch(last).num_rows
        if mixture is not None:
            sizes = json.loads(self._file.schema.metadata[SIZES])
            self.mixture = Mixture(mixture.parts(sizes))

    def __len__(self) -> int:
        return self._len

    def row(self, index: int) -> dict[str, Any]:
        """The stream columns of one row."""
        batch, row = self._find(index)
        return {name: batch[name][row].as_py() for name in STREAM_COLUMNS}

    def _find(self, index: int) -> tuple[pa.RecordBatch, int]:
        """The batch that holds a row, and the row's position in it."""
        number, row = divmod(index, BATCH_ROWS)
        return self._file.get_batch(number), row

    def rows_of(self, s: NDArray[np.int64], seeds: Seeds) -> NDArray[np.int64]:
        """Row for each global sample index: [M] to [M]."""
        if self.mixture is not None:
            return self.mixture.rows(s, seeds)
        return rows_of(s, len(self), seeds)

    def clip_ids(self, indices: NDArray[np.int64]) -> list[str]:
        """Clip ids of rows, in the order asked for."""
        found = (self._find(index) for index in indices.tolist())
        return [batch["clip_id"][row].as_py() for batch, row in found]


def open_clips(
    path: str | Path,
    where: ClipFilter,
    mixture: MixtureConfig | None = None,
    cache: Path | None = None,
) -> ClipTable:
    """Open the filtered stream columns of a manifest as memory-mapped Arrow.

    The conversion runs once per node, under a lock, into `cache` (default: a folder of this user
    under the system's temporary directory), under a name made of the manifest's fingerprint, the
    filter and the mixture. Relative URIs are taken relative to the manifest.

    Raises:
        ManifestError: the manifest is bad (see `read_manifest`), no row passes the filter, or a
            data set of the mixture has none.
        StorageError: the node has no room for the converted rows.
    """
    path = Path(path)
    folder = cache or node_folder()
    fingerprint = known_fingerprint(path, folder) if path.is_file() else "none"
    mixed = "" if mixture is None else f"|{mixture.model_dump_json()}"
    key = f"{where.model_dump_json()}|{path.resolve().parent}{mixed}|{STREAM_COLUMNS}|{BATCH_ROWS}"
    name = f"{fingerprint[:24]}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.arrow"
    mapped = folder / name
    if not mapped.is_file():
        with locked(mapped):
            if not mapped.is_file():  # another process may have made it meanwhile
                convert(
                    Conversion(manifest=str(path), where=where, mixture=mixture, target=str(mapped))
                )
    return ClipTable(mapped, fingerprint, mixture)
