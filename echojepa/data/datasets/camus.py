"""CAMUS: apical two- and four-chamber half sequences of 500 adults, as NIfTI.

    ROOT/database_nifti/patient0001/Info_2CH.cfg     ED, ES, NbFrame, Sex, Age, ImageQuality, EF,
    ROOT/database_nifti/patient0001/Info_4CH.cfg     FrameRate: one `Name: value` a line
    ROOT/database_nifti/patient0001/patient0001_2CH_half_sequence.nii.gz, ..._4CH_...
    ROOT/database_split/subgroup_training.txt, subgroup_validation.txt, subgroup_testing.txt

A half sequence runs from end-diastole to end-systole, a third to half of a second: a window for EF
must not assume a whole beat, and takes most clips whole. Every sequence is written as a lossless
video into a folder beside the manifest, see `nifti_video`. EF is a patient's, in percent, from both
views (Leclerc et al., IEEE TMI 38, 2019). Manifest columns beside the standard ones: lvef, sex,
age, age_band, image_quality, ed_frame, es_frame (frames counted from 0).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from echojepa.data.datasets.cells import Cells, age_band
from echojepa.data.datasets.echonet_dynamic import EF_PERCENT
from echojepa.data.datasets.listing import Entry, Listing, entry_of, require
from echojepa.data.datasets.nifti_video import convert, require_nibabel
from echojepa.data.decode.timeline import LEAST_FPS, MOST_FPS
from echojepa.data.manifest.text_table import opened_text
from echojepa.errors import ClipError

_FRAMES = "database_nifti"
_LISTS = {
    "train": "database_split/subgroup_training.txt",
    "val": "database_split/subgroup_validation.txt",
    "test": "database_split/subgroup_testing.txt",
}
_VIEWS = {"2CH": "A2C", "4CH": "A4C"}
"""By the data set's name: the manifest's."""
_MOST_FRAMES = 10_000
_LABELS = {
    "lvef": pa.float64(),
    "sex": pa.string(),
    "age": pa.float64(),
    "age_band": pa.string(),
    "image_quality": pa.string(),
    "ed_frame": pa.int64(),
    "es_frame": pa.int64(),
}


def read_camus(root: Path, videos: Path) -> Listing:
    """The entries of a folder of CAMUS.

    Args:
        videos: folder into which looking at an entry writes its video.

    Raises:
        ManifestError: the folder is another one.
        ConfigError: nibabel, which reads NIfTI, is not installed.
    """
    require_nibabel()
    require(root, "CAMUS", (_FRAMES, *_LISTS.values()))
    return Listing(lambda: _entries(root.resolve(), videos.resolve()), _LABELS)


def _entries(root: Path, videos: Path) -> Iterator[Entry]:
    for patient, split in _patients(root):
        for name, view in _VIEWS.items():
            clip_id = f"{patient}_{name}"
            target = videos / f"{clip_id}.mp4"
            row = {
                "clip_id": clip_id,
                "patient_id": patient,
                "study_id": patient,
                "uri": str(target),
                "view": view,
                "doppler": "none",
                "population": "adult",
                "split": split,
            }
            folder = root / _FRAMES / patient
            cells = Cells(_facts(folder / f"Info_{name}.cfg"))
            entry = entry_of(row, cells, partial(_row, split))
            if entry.problem is None:
                source = folder / f"{clip_id}_half_sequence.nii.gz"
                fps = cells.label("FrameRate", LEAST_FPS, MOST_FPS)
                make = partial(convert, str(source), target, fps)
                entry = entry._replace(make=make, stated={"num_frames": cells.fact("NbFrame")})
            yield entry


def _patients(root: Path) -> Iterator[tuple[str, str | None]]:
    """The patients of the lists with their splits, then those whom no list names."""
    listed: set[str] = set()
    for split, name in _LISTS.items():
        with opened_text(root / name) as lines:
            for patient in filter(None, map(str.strip, lines)):
                listed.add(patient)
                yield patient, split
    folders = {path.name for path in (root / _FRAMES).iterdir() if path.is_dir()}
    for patient in sorted(folders - listed):
        yield patient, None


def _facts(file: Path) -> dict[str, str]:
    """What a file of `Name: value` lines says; nothing if there is none."""
    if not file.is_file():
        return {}
    with opened_text(file) as lines:
        parts = (line.partition(":") for line in lines)
        return {name.strip(): value for name, _, value in parts}


def _row(split: str | None, cells: Cells) -> dict[str, Any]:
    if split is None:
        raise ClipError("list", "no_split", "no list of database_split names the patient")
    cells.label("FrameRate", LEAST_FPS, MOST_FPS)  # or no video can be made
    age = cells.known("Age", 0, 120)
    frames = {name: cells.known(name, 1, _MOST_FRAMES) for name in ("ED", "ES")}
    return {
        "lvef": cells.label("EF", *EF_PERCENT),
        "sex": cells.text("Sex"),
        "age": age,
        "age_band": age_band(age, "adult"),
        "image_quality": cells.text("ImageQuality"),
        **{
            f"{name.lower()}_frame": None if number is None else int(number) - 1
            for name, number in frames.items()
        },
    }
