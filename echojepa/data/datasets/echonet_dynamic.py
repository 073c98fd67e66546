"""EchoNet-Dynamic: apical four-chamber videos of some 10,000 adults, one each.

    ROOT/FileList.csv   FileName,EF,ESV,EDV,FrameHeight,FrameWidth,FPS,NumberOfFrames,Split
    ROOT/Videos/<FileName>.avi

`FileName` stands with or without `.avi`, and splits in capitals. The data set holds one video per
person (Ouyang et al., Nature 580, 2020): its name is the person's, too. EF is in percent, volumes
are in ml. Manifest columns beside the standard ones: lvef, esv_ml, edv_ml.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from echojepa.data.datasets.cells import Cells
from echojepa.data.datasets.listing import Entry, Listing, entry_of, read_list, require
from echojepa.data.manifest.schema import SPLITS
from echojepa.errors import ClipError

LIST = "FileList.csv"
VIDEOS = "Videos"
SUFFIX = ".avi"
EF_PERCENT = (1.0, 100.0)
"""Least and most; a share of 1 instead of a percentage lies below."""
_VOLUME_ML = (0.1, 1000.0)
_COLUMNS = (
    "FileName",
    "EF",
    "ESV",
    "EDV",
    "FrameHeight",
    "FrameWidth",
    "FPS",
    "NumberOfFrames",
    "Split",
)
_FACTS = {
    "height": "FrameHeight",
    "width": "FrameWidth",
    "native_fps": "FPS",
    "num_frames": "NumberOfFrames",
}
"""By manifest column: the list's."""


def read_echonet_dynamic(root: Path) -> Listing:
    """The entries of a folder of EchoNet-Dynamic.

    Raises:
        ManifestError: the folder is another one, or its list has other columns.
    """
    require(root, "EchoNet-Dynamic", (LIST, VIDEOS))
    return Listing(
        lambda: _entries(root.resolve()), dict.fromkeys(("lvef", "esv_ml", "edv_ml"), pa.float64())
    )


def _entries(root: Path) -> Iterator[Entry]:
    for number, cells in read_list(root / LIST, _COLUMNS):
        row = named_video(cells, number, root / VIDEOS)
        stated = {column: cells.fact(name) for column, name in _FACTS.items()}
        yield entry_of(row, cells, _row)._replace(stated=stated)


def named_video(cells: Cells, number: int, folder: Path) -> dict[str, Any]:
    """Id and place of the video that line `number` of a `FileList.csv` names."""
    stem = (cells.text("FileName") or f"line {number}").removesuffix(SUFFIX)
    return {"clip_id": stem, "uri": str(folder / f"{stem}{SUFFIX}")}


def file_name(cells: Cells) -> str:
    """The name of a video without its suffix.

    Raises:
        ClipError: stage "list": no_name.
    """
    name = cells.text("FileName")
    if name is None or "/" in name:
        raise ClipError("list", "no_name", "FileName is empty or a path")
    return name.removesuffix(SUFFIX)


def _row(cells: Cells) -> dict[str, Any]:
    name = file_name(cells)
    split = (cells.text("Split") or "").lower()
    if split not in SPLITS:
        raise ClipError("list", "unknown_split", f"Split is not one of {', '.join(SPLITS)}")
    return {
        "patient_id": name,
        "study_id": name,
        "view": "A4C",
        "doppler": "none",
        "population": "adult",
        "split": split,
        "lvef": cells.label("EF", *EF_PERCENT),
        "esv_ml": cells.label("ESV", *_VOLUME_ML),
        "edv_ml": cells.label("EDV", *_VOLUME_ML),
    }
