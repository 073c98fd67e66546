"""Whom an encoder has seen in pretraining, without saying who they are.

A digest of every patient's id, keyed by a random number of the run, goes with the run and with
every encoder it exports. Who has a list of patients can ask which of them were seen; nobody can
read a list off the digests.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from echojepa.data.manifest.file import scan_manifest
from echojepa.data.manifest.schema import ClipFilter
from echojepa.data.mixture import MixtureConfig
from echojepa.durable import flush
from echojepa.errors import CheckpointError, first_line

FILE = "patients.parquet"
"""In a run folder and in an encoder folder."""
_KEY_BYTES = 16
_COMPLETE = b"complete"


@dataclass(frozen=True)
class PatientDigests:
    """The patients of one run and of those it went on from."""

    parts: Mapping[bytes, NDArray[np.uint64]]
    """Digests by the key they were made with."""
    complete: bool
    """False if the weights came from elsewhere, and nobody knows whom they had seen."""

    @classmethod
    def of(
        cls, manifest: str | Path, where: ClipFilter, mixture: MixtureConfig | None = None
    ) -> PatientDigests:
        """Of the rows of a manifest that a run uses; the manifest is streamed."""
        keep = where.rows()
        if mixture is not None:
            keep = keep.among(mixture.by, mixture.shares)
        patients: set[str] = set()
        for batch in scan_manifest(manifest, ("patient_id",), keep):
            patients.update(pc.unique(batch["patient_id"]).to_pylist())
        key = secrets.token_bytes(_KEY_BYTES)
        return cls({key: np.sort(_digests(key, patients))}, complete=True)

    def and_of(self, source: PatientDigests | None) -> PatientDigests:
        """With those of the weights that the run began with; None if nobody knows them."""
        if source is None:
            return PatientDigests(self.parts, complete=False)
        complete = self.complete and source.complete
        return PatientDigests({**source.parts, **self.parts}, complete)

    def seen(self, patients: Iterable[str]) -> set[str]:
        """Which of some patients are among them."""
        asked = np.array(sorted(set(patients)), str)
        found = np.zeros(len(asked), bool)
        for key, digests in self.parts.items():
            found |= np.isin(_digests(key, asked.tolist()), digests)
        return set(asked[found].tolist())

    def write(self, folder: Path) -> None:
        """Write `FILE` into a folder."""
        keys = [key.hex() for key, digests in self.parts.items() for _ in range(len(digests))]
        digests = np.concatenate([*self.parts.values(), np.empty(0, np.uint64)])
        table = pa.table(
            {"key": pa.array(keys, pa.string()).dictionary_encode(), "digest": digests}
        )
        told = {_COMPLETE: str(self.complete).encode()}
        partial = folder / f".{FILE}.partial"
        pq.write_table(table.replace_schema_metadata(told), partial)
        flush(partial)
        partial.replace(folder / FILE)
        flush(folder)

    @classmethod
    def read(cls, folder: Path) -> PatientDigests | None:
        """From a run folder, an encoder folder or a checkpoint of a run; None if there are none.

        Raises:
            CheckpointError: the file is damaged.
        """
        if folder.parent.name == "checkpoints":
            folder = folder.parent.parent
        file = folder / FILE
        if not file.is_file():
            return None
        try:
            table = pq.read_table(file)
            keys = np.array(table["key"].cast(pa.string()).to_pylist(), str)
            digests = table["digest"].to_numpy()
            complete = table.schema.metadata[_COMPLETE] == b"True"
        except (pa.ArrowInvalid, OSError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"the list of pretraining patients is damaged: {first_line(error)}",
                "Export the encoder again; of a run, delete the file and resume it.",
                str(file),
            ) from None
        return cls({bytes.fromhex(k): digests[keys == k] for k in np.unique(keys)}, complete)


def _digests(key: bytes, patients: Iterable[str]) -> NDArray[np.uint64]:
    """64 bits of each; two of a million patients share theirs with a chance of 1 in 40 million."""
    found = [hashlib.blake2b(p.encode(), key=key, digest_size=8).digest() for p in patients]
    return np.frombuffer(b"".join(found), np.uint64)
