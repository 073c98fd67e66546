"""The manifest: one Parquet row per clip.

A manifest is explicit about identity (`clip_id`, `patient_id`, `study_id` are columns, never parsed
out of paths) and splits are checked to be patient-disjoint every time it is opened. Extra columns
are labels in raw units (`lvef` in percent, `heart_rate` in beats per minute, ...).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from echojepa.config import Strict
from echojepa.errors import ManifestError, first_line

SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("patient_id", pa.string(), nullable=False),
        pa.field("study_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("num_frames", pa.int32(), nullable=False),
        pa.field("native_fps", pa.float64(), nullable=False),
        pa.field("duration_seconds", pa.float64()),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("view", pa.string()),
        pa.field("doppler", pa.string()),
        pa.field("split", pa.string()),
        pa.field("population", pa.string()),
        pa.field("content_hash", pa.string()),
    ]
)
"""Columns every manifest has; any further numeric or text column is a label.

`duration_seconds` is the time from the first frame to the last, and one mean frame more. Where it
is null, frames are evenly spaced: num_frames / native_fps.
"""

SPLITS = ("train", "val", "test")
DOPPLER = ("none", "colour", "spectral")
STREAM_COLUMNS = (
    "clip_id",
    "uri",
    "num_frames",
    "native_fps",
    "duration_seconds",
    "height",
    "width",
)
"""What training and probes read of a clip."""


class ClipFilter(Strict):
    """Which rows of a manifest a job uses."""

    split: str | None = "train"
    """Only rows of this split; null takes all."""
    views: tuple[str, ...] | None = None
    """Only these views; null takes all, also rows without a view."""
    doppler: tuple[str, ...] | None = None
    """Only these kinds (none, colour, spectral); null takes all."""
    min_frames: int = 1
    """Rows with fewer native frames (stills, say) are left out, and counted by `manifest stats`."""


def read_manifest(path: str | Path) -> pa.Table:
    """Read and check a whole manifest.

    Raises:
        ManifestError: missing file, missing or mistyped column, null or repeated id, impossible
            number, unknown split, or a patient in two splits.
    """
    return check_manifest(_read_parquet(Path(path)), str(path))


def read_without_splits(path: str | Path) -> pa.Table:
    """Read a manifest whose splits are about to be made again: like `read_manifest`, all null."""
    table = _read_parquet(Path(path))
    kept = [name for name in table.column_names if name != "split"]
    return check_manifest(table.select(kept), str(path))


def _read_parquet(path: Path) -> pa.Table:
    if not path.is_file():
        raise ManifestError(
            "no such manifest",
            "Check the path, or write one with `echojepa manifest` or `echojepa phantom`.",
            str(path),
        )
    try:
        return pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        reason = first_line(error)
        raise ManifestError(f"not a Parquet file: {reason}", "Rebuild it.", str(path)) from None


def check_manifest(table: pa.Table, where: str) -> pa.Table:
    """Return `table` with the standard columns in standard types, or raise `ManifestError`."""
    columns: dict[str, Any] = {}
    for field in SCHEMA:
        if field.name not in table.column_names:
            if not field.nullable:
                raise ManifestError(f"column {field.name!r} is missing", "Add it.", where)
            columns[field.name] = pa.nulls(len(table), field.type)
            continue
        try:
            columns[field.name] = table[field.name].cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise ManifestError(
                f"column {field.name!r} is {table[field.name].type}, not {field.type}",
                "Convert it.",
                where,
            ) from None
        if not field.nullable and columns[field.name].null_count:
            row = pc.index(columns[field.name].is_null(), True).as_py()
            raise ManifestError(f"column {field.name!r} is null in row {row}", "Fill it.", where)
    for name in table.column_names:
        columns.setdefault(name, table[name])
    checked = pa.table(columns)
    _check_values(checked, where)
    _check_patient_disjoint(checked, where)
    return checked


def _check_values(table: pa.Table, where: str) -> None:
    if not len(table):
        raise ManifestError("the manifest has no rows", "Write at least one clip.", where)
    counts = pc.value_counts(table["clip_id"])
    repeated = counts.filter(pc.greater(pc.struct_field(counts, "counts"), 1))
    if len(repeated):
        raise ManifestError(
            f"clip_id {repeated[0]['values'].as_py()!r} occurs {repeated[0]['counts']} times",
            "Give every clip an id of its own.",
            where,
        )
    for name in ("num_frames", "native_fps", "duration_seconds", "height", "width"):
        possible = pc.and_(pc.greater(table[name], 0), pc.less(table[name], float("inf")))
        bad = pc.invert(pc.fill_null(possible, True))
        if pc.any(bad).as_py():
            row = pc.index(bad, True).as_py()
            clip = table["clip_id"][row].as_py()
            raise ManifestError(
                f"{name} = {table[name][row].as_py()} of clip {clip!r} is not a number above 0",
                "Measure it again, or leave the clip out.",
                where,
            )
    for name, allowed in (("split", SPLITS), ("doppler", DOPPLER)):
        found = set(pc.unique(table[name]).to_pylist()) - {None, *allowed}
        if found:
            raise ManifestError(
                f"{name} {sorted(found)[0]!r} is not one of {', '.join(allowed)}",
                "Rename it, or set it to null.",
                where,
            )


def _check_patient_disjoint(table: pa.Table, where: str) -> None:
    pairs = table.select(["patient_id", "split"]).filter(pc.is_valid(table["split"]))
    splits = pairs.group_by("patient_id").aggregate([("split", "count_distinct")])
    bad = splits.filter(pc.greater(splits["split_count_distinct"], 1))
    if len(bad):
        patient = bad["patient_id"][0].as_py()
        named = pairs.filter(pc.equal(pairs["patient_id"], patient))
        both = " and ".join(sorted(set(named["split"].to_pylist())))
        raise ManifestError(
            f"patient {patient!r} is in two splits ({both}); {len(bad)} such patient(s)",
            "Assign splits by patient: `echojepa manifest split` does.",
            where,
        )


def write_manifest(table: pa.Table, path: str | Path) -> Path:
    """Check a table and write it as a manifest, atomically. Returns the path."""
    path = Path(path)
    checked = check_manifest(table, str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    pq.write_table(checked, partial)
    partial.replace(path)
    return path


def manifest_fingerprint(path: str | Path) -> str:
    """SHA-256 of the manifest file: any change of any byte is another manifest."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def assign_splits(table: pa.Table, fractions: Sequence[float], seed: int) -> pa.Table:
    """Give every patient a split (train, val, test) by a keyed hash of its id.

    A patient keeps its split when others are added. `fractions` are the three shares; they sum
    to 1.
    """
    if len(fractions) != 3 or not (min(fractions) >= 0 and abs(sum(fractions) - 1) <= 1e-6):
        raise ManifestError(
            f"split fractions {tuple(fractions)} are not three shares that sum to 1",
            "Write for instance 0.8,0.1,0.1.",
        )
    edges = np.cumsum(fractions)

    def split_of(patient: str) -> str:
        digest = hashlib.blake2b(patient.encode(), key=str(seed).encode(), digest_size=8).digest()
        position = int.from_bytes(digest, "little") / 2**64
        return SPLITS[min(int(np.searchsorted(edges, position, side="right")), 2)]

    splits = pa.array([split_of(p) for p in table["patient_id"].to_pylist()], pa.string())
    return table.set_column(table.column_names.index("split"), "split", splits)


def filter_rows(table: pa.Table, where: ClipFilter, source: str) -> pa.Table:
    """The rows that pass `where`, in manifest order; none is a `ManifestError`."""
    keep = pc.greater_equal(table["num_frames"], where.min_frames)
    if where.split is not None:
        keep = pc.and_(keep, pc.fill_null(pc.equal(table["split"], where.split), False))
    for name, wanted in (("view", where.views), ("doppler", where.doppler)):
        if wanted is not None:
            keep = pc.and_(keep, pc.is_in(table[name], pa.array(wanted, pa.string())))
    kept = table.filter(keep)
    if not len(kept):
        raise ManifestError(
            f"no row of {len(table)} passes the filter {where.model_dump(exclude_none=True)}",
            "Change data.where, or the manifest.",
            source,
        )
    return kept


def with_absolute_uris(table: pa.Table, base: Path) -> pa.Table:
    """Local paths in `uri`, relative to the manifest's folder `base`, made absolute."""
    uris = [u if "://" in u else str(base / u) for u in table["uri"].to_pylist()]
    return table.set_column(table.column_names.index("uri"), "uri", pa.array(uris, pa.string()))


def ready_to_read(table: pa.Table, base: Path) -> pa.Table:
    """Rows with absolute paths, and a duration for every clip."""
    table = with_absolute_uris(table, base)
    even = pc.divide(table["num_frames"].cast(pa.float64()), table["native_fps"])
    known = pc.coalesce(table["duration_seconds"], even)
    return table.set_column(table.column_names.index("duration_seconds"), "duration_seconds", known)
