"""No leak: were test patients seen in pretraining, and how often has the test split been read?"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from echojepa.data.manifest.patients import PatientDigests
from echojepa.encoders.source import Source
from echojepa.errors import ManifestError

Overlap = Literal["stop", "mark"]
_LEDGER = "ledger.jsonl"


class Pretraining(NamedTuple):
    """What is known of the patients that an encoder was pretrained on."""

    known: bool
    """Whether the encoder comes with a list of them, and so do the weights that it began with."""
    num_overlapping: int
    """Test patients who are among them."""

    def describe(self) -> str:
        """For people: how many test patients were seen."""
        seen = str(self.num_overlapping) if self.num_overlapping else "none"
        return seen if self.known else f"{seen} known of; the list is not complete"


def pretraining_of(source: Source, table: pa.Table, overlap: Overlap) -> Pretraining:
    """Compare the test patients of a table with those of an encoder's pretraining.

    Raises:
        ManifestError: some are the same, and `overlap` is "stop".
    """
    if source.untrained:
        return Pretraining(known=True, num_overlapping=0)
    origin = source.origin()
    digests = PatientDigests.read(origin) if origin is not None else None
    if digests is None:
        return Pretraining(known=False, num_overlapping=0)
    tested = table.filter(pc.equal(table["split"], "test"))["patient_id"].unique().to_pylist()
    same = digests.seen(tested)
    if same and overlap == "stop":
        raise ManifestError(
            f"{len(same)} of {len(tested)} test patients were in the encoder's pretraining",
            "Pretrain on other patients (data.where.split=train), or set overlap=mark to have it "
            "said in every result.",
            str(origin),
        )
    return Pretraining(digests.complete, len(same))


def note_reading(out: Path, config_hash: str) -> int:
    """Note in the folder's ledger that the test split was read; returns how often it was."""
    ledger = out / _LEDGER
    with ledger.open("a") as file:
        file.write(json.dumps({"time": round(time.time()), "config": config_hash}) + "\n")
    return len(ledger.read_text().splitlines())
