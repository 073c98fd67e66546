"""What a manifest holds, in numbers a person wants to see before training on it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Rows = dict[str, dict[str, str]]


def describe_manifest(table: pa.Table) -> dict[str, Rows]:
    """Tables by title: counts per split, view and Doppler kind, and the spread of numbers."""
    return {
        "split": _counts(table, "split"),
        "view": _counts(table, "view"),
        "doppler": _counts(table, "doppler"),
        "number": _spread(table),
    }


def _counts(table: pa.Table, column: str) -> Rows:
    rows: Rows = {}
    for value in sorted(set(table[column].to_pylist()), key=str):
        chosen = pc.is_null(table[column]) if value is None else pc.equal(table[column], value)
        part = table.filter(chosen)
        rows[str(value)] = {
            "clips": str(len(part)),
            "studies": str(pc.count_distinct(part["study_id"]).as_py()),
            "patients": str(pc.count_distinct(part["patient_id"]).as_py()),
            "stills": str(pc.sum(pc.equal(part["num_frames"], 1)).as_py()),
        }
    return rows


def _spread(table: pa.Table) -> Rows:
    """Quantiles of every numeric column, labels included."""
    rows: Rows = {}
    for name in table.column_names:
        kind = table[name].type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            continue
        values = np.asarray(pc.drop_null(table[name]).to_pylist(), np.float64)
        values = values[~np.isnan(values)]
        if len(values):
            low, median, high = np.quantile(values, [0, 0.5, 1])
            rows[name] = {
                "known": str(len(values)),
                "least": f"{low:.4g}",
                "median": f"{median:.4g}",
                "most": f"{high:.4g}",
            }
    return rows
