"""Patients whom no arm is pretrained on and no probe is fitted on, such as children.

A manifest is cut in two or more: the rest, which everything learns from, and the rows of every
group that is held out. Probes are judged on their test split as on other people's patients.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from echojepa.benchmark.config import REST, HeldOut
from echojepa.data.manifest.file import read_manifest, with_absolute_uris, write_manifest
from echojepa.errors import ManifestError


def cut_manifest(manifest: str, held_out: Mapping[str, HeldOut], folder: Path) -> None:
    """Write FOLDER/rest.parquet and FOLDER/NAME.parquet of every group.

    Raises:
        ManifestError: a column is missing, a group has no row, nothing is left, or a patient is in
            a group and in the rest.
    """
    table = read_manifest(manifest)
    batches = [with_absolute_uris(b, Path(manifest).resolve().parent) for b in table.to_batches()]
    table = pa.Table.from_batches(batches)
    rest = table
    for name, group in held_out.items():
        if group.column not in table.column_names:
            raise ManifestError(
                f"held_out.{name} needs the column {group.column!r}", "Add it.", manifest
            )
        values = pa.array(group.values)
        rows = table.filter(pc.is_in(table[group.column], values))
        rest = rest.filter(pc.invert(pc.is_in(rest[group.column], values)))
        if not len(rows):
            raise ManifestError(
                f"held_out.{name} has no row: {group.column} is never {list(group.values)}",
                "Name other values.",
                manifest,
            )
        write_manifest(rows, folder / f"{name}.parquet")
        both = set(rows["patient_id"].to_pylist()) & set(rest["patient_id"].to_pylist())
        if both:
            raise ManifestError(
                f"{len(both)} patient(s) of held_out.{name} are among the rest, too",
                "Hold out whole patients.",
                manifest,
            )
    write_manifest(rest, folder / f"{REST}.parquet")
