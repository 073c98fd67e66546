"""EchoNet-Pediatric: two views of people up to 18 years of age, in ten folds.

    ROOT/A4C/FileList.csv, ROOT/PSAX/FileList.csv   FileName,EF,Sex,Age,Weight,Height,Split
    ROOT/A4C/Videos/<FileName>, ROOT/PSAX/Videos/<FileName>

`FileName` is PATIENT-STUDY-NUMBER.avi: the data set says nowhere else whose a video is, and its
authors read it so (Reddy et al., J Am Soc Echocardiogr 36, 2023). `Split` is the patient's fold, 0
to 9, and the data set does not say which fold is the test set: `Folds` must be named. EF is a
study's, in percent; Age is in years, Weight in kg, Height in cm. The view PSAX is called so because
no list says at which level it is. Manifest columns beside the standard ones: lvef, sex, age,
age_band, weight_kg, height_cm, fold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from echojepa.data.datasets.cells import Cells, age_band
from echojepa.data.datasets.echonet_dynamic import (
    EF_PERCENT,
    LIST,
    VIDEOS,
    file_name,
    named_video,
)
from echojepa.data.datasets.listing import Entry, Listing, entry_of, read_list, require
from echojepa.errors import ClipError, ManifestError

_VIEWS = ("A4C", "PSAX")
_COLUMNS = ("FileName", "EF", "Sex", "Age", "Weight", "Height", "Split")
_NAME = re.compile(r"([^-]+)-([^-]+)-\d+")
_NUM_FOLDS = 10
_LABELS = {
    "lvef": pa.float64(),
    "sex": pa.string(),
    "age": pa.float64(),
    "age_band": pa.string(),
    "weight_kg": pa.float64(),
    "height_cm": pa.float64(),
    "fold": pa.int64(),
}
_REMEDY = "Name a --protocol (cardiobench, echojepa), or --folds such as test=0,val=1."


class Folds(NamedTuple):
    """Which of the folds 0 to 9 are held out; one trains on the others."""

    val: frozenset[int]
    test: frozenset[int]

    def split_of(self, fold: int) -> str:
        """The split of a fold's clips."""
        return "test" if fold in self.test else "val" if fold in self.val else "train"


PROTOCOLS = {
    "cardiobench": Folds(val=frozenset({1}), test=frozenset({0})),
    "echojepa": Folds(val=frozenset({8}), test=frozenset({9})),
}
"""The benchmark CardioBench, and the split of the EchoJEPA paper. Each tests on what the other
trains on: results of one never stand beside those of the other."""


def choose_folds(protocol: str | None, folds: str | None) -> Folds:
    """The folds that a user names, as a protocol or as `test=0,val=1` (a split may have several).

    Raises:
        ManifestError: neither or both are named, there is no such protocol or fold, a fold is in
            both splits, or a split has none.
    """
    if (protocol is None) == (folds is None):
        what = "the data set has folds, and nothing says" if folds is None else "two things say"
        raise ManifestError(f"{what} which are val and test", _REMEDY)
    if folds is None:
        if protocol not in PROTOCOLS:
            raise ManifestError(f"there is no protocol {protocol!r}", _REMEDY)
        return PROTOCOLS[protocol]
    chosen: dict[str, set[int]] = {"val": set(), "test": set()}
    for part in folds.split(","):
        split, _, fold = (word.strip() for word in part.partition("="))
        if split not in chosen or fold not in map(str, range(_NUM_FOLDS)):
            what = f"{part.strip()!r} is not val or test, =, and a fold from 0 to {_NUM_FOLDS - 1}"
            raise ManifestError(what, f"All other folds are train. {_REMEDY}")
        chosen[split].add(int(fold))
    both = sorted(chosen["val"] & chosen["test"])
    if both:
        raise ManifestError(f"fold {both[0]} is both val and test", _REMEDY)
    for split, held_out in chosen.items():
        if not held_out:
            raise ManifestError(f"no fold is {split}", _REMEDY)
    return Folds(frozenset(chosen["val"]), frozenset(chosen["test"]))


def read_echonet_pediatric(root: Path, folds: Folds) -> Listing:
    """The entries of a folder of EchoNet-Pediatric.

    Raises:
        ManifestError: the folder is another one, or a list has other columns.
    """
    parts = (f"{view}/{part}" for view in _VIEWS for part in (LIST, VIDEOS))
    require(root, "EchoNet-Pediatric", parts)
    return Listing(lambda: _entries(root.resolve(), folds), _LABELS)


def _entries(root: Path, folds: Folds) -> Iterator[Entry]:
    for view in _VIEWS:
        for number, cells in read_list(root / view / LIST, _COLUMNS):
            row = named_video(cells, number, root / view / VIDEOS)
            yield entry_of({**row, "view": view}, cells, partial(_row, folds))


def _row(folds: Folds, cells: Cells) -> dict[str, Any]:
    name = _NAME.fullmatch(file_name(cells))
    if name is None:
        what = "FileName is not PATIENT-STUDY-NUMBER, so nobody knows whose video it is"
        raise ClipError("list", "no_patient", what)
    fold = cells.fact("Split")
    if fold is None or fold not in range(_NUM_FOLDS):
        what = f"Split is not a fold from 0 to {_NUM_FOLDS - 1}"
        raise ClipError("list", "unknown_split", what)
    patient, study = name.groups()
    age = cells.known("Age", 0, 120)
    return {
        "patient_id": patient,
        "study_id": f"{patient}-{study}",
        "doppler": "none",
        "population": "paediatric",
        "split": folds.split_of(int(fold)),
        "lvef": cells.label("EF", *EF_PERCENT),
        "sex": cells.text("Sex"),
        "age": age,
        "age_band": age_band(age, "paediatric"),
        "weight_kg": cells.known("Weight", 0.1, 400),
        "height_cm": cells.known("Height", 10, 250),
        "fold": int(fold),
    }
