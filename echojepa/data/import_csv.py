"""The reference's CSV files (`path label`, no header, space-delimited) as a manifest.

They say nothing of patients, and paths must not be guessed from, so a second table does: a CSV with
the header `path,patient_id,study_id` and, if known, `view`.
"""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa

from echojepa.data.decode.frames import open_video
from echojepa.data.manifest import write_manifest
from echojepa.errors import ClipError, ManifestError


def import_csv(file: Path, identities: Path, label: str | None, target: Path) -> Path:
    """Write a manifest of the videos that a reference CSV names; returns its path.

    Args:
        label: name of the label column; None drops the labels (pretraining CSVs hold zeros).

    Raises:
        ManifestError: a malformed line, a video without identity, or one that cannot be read.
    """
    known = _identities(identities)
    rows = []
    for number, line in _lines(file):
        path, _, value = line.strip().rpartition(" ")
        if path not in known:
            what = f"line {number} names a video that has no row in {identities.name}"
            raise ManifestError(what, "Add its patient_id and study_id.", str(file))
        if not (known[path]["patient_id"] and known[path]["study_id"]):
            what = f"line {number} names a video without patient or study in {identities.name}"
            raise ManifestError(what, "Add its patient_id and study_id.", str(file))
        rows.append(_row(file, number, path, value, known[path], label))
    return write_manifest(pa.Table.from_pylist(rows), target)


def _row(
    file: Path, number: int, path: str, value: str, identity: dict[str, str], label: str | None
) -> dict[str, Any]:
    """One manifest row; frames, rate and size are measured."""
    uri = path if "://" in path else str(Path(path).resolve())
    try:
        info = open_video(uri).probe()
    except ClipError as error:
        what = f"the video of line {number} cannot be used: {error}"
        raise ManifestError(what, "Fix or drop it.", str(file)) from None
    row: dict[str, Any] = {
        "clip_id": hashlib.blake2b(path.encode(), digest_size=8).hexdigest(),
        "patient_id": identity["patient_id"],
        "study_id": identity["study_id"],
        "uri": uri,
        "num_frames": info.num_frames,
        "native_fps": info.native_fps,
        "duration_seconds": info.duration_seconds,
        "height": info.height,
        "width": info.width,
        "view": identity.get("view") or None,
    }
    if label is not None:
        try:
            row[label] = float(value)
        except ValueError:
            what = f"the label of line {number} is {value!r}, not a number"
            raise ManifestError(what, "Fix the line, or omit --label.", str(file)) from None
    return row


def _lines(file: Path) -> list[tuple[int, str]]:
    """The lines that are not blank, with their numbers in the file."""
    try:
        lines = list(enumerate(file.read_text().splitlines(), start=1))
    except OSError:
        raise ManifestError("no such file", "Check the path.", str(file)) from None
    except UnicodeDecodeError:
        raise ManifestError("not a text file", "Check the path.", str(file)) from None
    lines = [(number, line) for number, line in lines if line.strip()]
    for number, line in lines:
        if " " not in line.strip():
            raise ManifestError(
                f"line {number} is not `path label`", "Separate the two by a space.", str(file)
            )
    return lines


def _identities(file: Path) -> dict[str, dict[str, str]]:
    try:
        with file.open(newline="") as opened:
            reader = csv.DictReader(opened)
            header, rows = reader.fieldnames or (), list(reader)
    except OSError:
        raise ManifestError("no such file", "Check the path.", str(file)) from None
    except (UnicodeDecodeError, csv.Error):
        raise ManifestError("not a CSV file", "Check the path.", str(file)) from None
    missing = {"path", "patient_id", "study_id"} - set(header)
    if missing:
        raise ManifestError(
            f"the header lacks {', '.join(sorted(missing))}",
            "Write path,patient_id,study_id[,view].",
            str(file),
        )
    return {row["path"]: row for row in rows}
