"""What a manifest holds, in numbers a person wants to see before training on it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pyarrow as pa

from echojepa.data.manifest.check import Scan, ask
from echojepa.data.manifest.file import check_manifest, scan_manifest
from echojepa.data.manifest.schema import is_number

Rows = dict[str, dict[str, str]]


def describe_manifest(path: Path) -> dict[str, Rows]:
    """Tables by title: counts per split, view and Doppler kind, and the spread of numbers.

    Raises:
        ManifestError: see `read_manifest`.
    """
    check_manifest(path)
    scan: Scan = partial(scan_manifest, path)
    return {
        "split": _counts(scan, "split"),
        "view": _counts(scan, "view"),
        "doppler": _counts(scan, "doppler"),
        "number": _spread(scan, next(scan_manifest(path)).schema),
    }


def _counts(scan: Scan, column: str) -> Rows:
    query = f"""
        select coalesce({column}, 'None') as name, count(*), count(distinct study_id),
            count(distinct patient_id), count(*) filter (num_frames = 1)
        from clips group by name order by name
    """
    columns = (column, "study_id", "patient_id", "num_frames")
    titles = ("clips", "studies", "patients", "stills")
    return {
        name: dict(zip(titles, map(str, counts), strict=True))
        for name, *counts in ask(scan, columns, query)
    }


def _spread(scan: Scan, schema: pa.Schema) -> Rows:
    """Quantiles of every numeric column, labels included."""
    rows: Rows = {}
    for field in schema:
        if not is_number(field.type):
            continue
        name = '"' + field.name.replace('"', '""') + '"'
        query = f"""
            select count(x), min(x), median(x), max(x)
            from (select {name}::double as x from clips) where x is not null and not isnan(x)
        """
        ((known, least, median, most),) = ask(scan, (field.name,), query)
        if known:
            rows[field.name] = {
                "known": str(known),
                "least": f"{least:.4g}",
                "median": f"{median:.4g}",
                "most": f"{most:.4g}",
            }
    return rows
