"""MIMIC-IV-Echo: some 525,000 DICOM clips of 4,579 adults.

    ROOT/echo-record-list.csv   subject_id,study_id,acquisition_datetime,dicom_filepath
    ROOT/files/p10/p10000000/s90000000/90000000_0001.dcm

The list knows neither views nor labels nor splits: `echojepa manifest split` assigns the latter.
Many files are single frames: `num_frames` tells. Manifest column beside the standard ones:
acquisition_datetime, as the list writes it (dates are shifted per patient).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from echojepa.data.datasets.cells import Cells
from echojepa.data.datasets.listing import Entry, Listing, entry_of, read_list, require
from echojepa.errors import ClipError

_LIST = "echo-record-list.csv"
_COLUMNS = ("subject_id", "study_id", "acquisition_datetime", "dicom_filepath")


def read_mimic(root: Path) -> Listing:
    """The entries of a folder of MIMIC-IV-Echo.

    Raises:
        ManifestError: the folder is another one, or its list has other columns.
    """
    require(root, "MIMIC-IV-Echo", (_LIST, "files"))
    return Listing(lambda: _entries(root.resolve()), {"acquisition_datetime": pa.string()})


def _entries(root: Path) -> Iterator[Entry]:
    for number, cells in read_list(root / _LIST, _COLUMNS):
        path = cells.text("dicom_filepath") or f"line {number}"
        row = {"clip_id": PurePosixPath(path).stem, "uri": str(root / path)}
        yield entry_of(row, cells, _row)


def _row(cells: Cells) -> dict[str, Any]:
    subject, study = cells.text("subject_id"), cells.text("study_id")
    if None in (subject, study, cells.text("dicom_filepath")):
        what = "subject_id, study_id or dicom_filepath is empty"
        raise ClipError("list", "no_name", what)
    return {
        "patient_id": subject,
        "study_id": study,
        "population": "adult",
        "acquisition_datetime": cells.text("acquisition_datetime"),
    }
