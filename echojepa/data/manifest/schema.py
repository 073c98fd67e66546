"""What a manifest is: columns, types and allowed values.

A manifest is explicit about identity (`clip_id`, `patient_id`, `study_id` are columns, never parsed
out of paths). Extra columns are labels in raw units (`lvef` in percent, `heart_rate` in beats per
minute, ...).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from echojepa.config import Strict
from echojepa.errors import ManifestError

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
is null, frames are evenly spaced: num_frames / native_fps. `content_hash` is `sha256:` and the
digest of the file.
"""
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
ABOVE_ZERO = ("num_frames", "native_fps", "duration_seconds", "height", "width")
"""Columns of finite numbers above 0."""
SPLITS = ("train", "val", "test")
DOPPLER = ("none", "colour", "spectral")


class RowFilter(NamedTuple):
    """Which rows to read, in Arrow's terms."""

    expression: pc.Expression
    columns: tuple[str, ...]
    """What the expression looks at."""

    def among(self, column: str, values: Iterable[str]) -> RowFilter:
        """Only those of these rows that have one of some texts in a column."""
        named = pc.field(column).cast(pa.string()).isin(pa.array(values, pa.string()))
        return RowFilter(self.expression & named, (*self.columns, column))


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

    def rows(self) -> RowFilter:
        """The filter in Arrow's terms."""
        keep = pc.field("num_frames") >= self.min_frames
        if self.split is not None:
            keep &= pc.field("split") == self.split
        for name, wanted in (("view", self.views), ("doppler", self.doppler)):
            if wanted is not None:
                keep &= pc.field(name).isin(pa.array(wanted, pa.string()))
        return RowFilter(keep, ("num_frames", "split", "view", "doppler"))


def standard(batch: pa.RecordBatch, where: str, columns: tuple[str, ...]) -> pa.RecordBatch:
    """Some columns of rows in the standard types and order, absent ones null.

    Raises:
        ManifestError: a needed column is missing, or one has another type.
    """
    arrays: list[pa.Array] = []
    for name in columns:
        index = SCHEMA.get_field_index(name)
        if index < 0:
            arrays.append(batch.column(name))
            continue
        field = SCHEMA.field(index)
        if name in batch.schema.names:
            arrays.append(_cast(batch.column(name), field, where))
        elif field.nullable:
            arrays.append(pa.nulls(batch.num_rows, field.type))
        else:
            raise ManifestError(f"column {name!r} is missing", "Add it.", where)
    return pa.RecordBatch.from_arrays(arrays, list(columns))


def all_columns(names: list[str]) -> tuple[str, ...]:
    """The standard columns, then the labels of a file with columns `names`."""
    return (*SCHEMA.names, *(name for name in names if name not in SCHEMA.names))


def _cast(column: pa.Array, field: pa.Field, where: str) -> pa.Array:
    try:
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        what = f"column {field.name!r} is {column.type}, not {field.type}"
        raise ManifestError(what, "Convert it.", where) from None


def is_number(kind: pa.DataType) -> bool:
    """Whether a column of this type can be a number to learn or to describe."""
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def has_value(column: str, schema: pa.Schema) -> pc.Expression:
    """The rows whose label is known: neither null nor, of a number, infinite or not one."""
    label = pc.field(column)
    known = label.is_valid()
    return known & pc.is_finite(label) if pa.types.is_floating(schema.field(column).type) else known


def with_durations(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The duration of evenly spaced frames where there is none."""
    even = pc.divide(batch["num_frames"].cast(pa.float64()), batch["native_fps"])
    known: Any = pc.coalesce(batch["duration_seconds"], even)
    return batch.set_column(
        batch.schema.get_field_index("duration_seconds"), "duration_seconds", known
    )
