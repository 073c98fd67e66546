"""How a phantom's files are named, and the lists that public data sets put beside theirs.

`flat` is ours: `clips/<clip_id>.<suffix>`. The two others look like EchoNet-Dynamic (`Videos/`,
`FileList.csv`) and MIMIC-IV-Echo (`files/p10/p10000000/s90000000/90000000_0001.<suffix>`,
`echo-record-list.csv`), so that whatever reads those can be tried on phantoms.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from echojepa.phantom.config import PhantomConfig

_MIMIC_IDS = 9_999_991
"""A prime: multiplying by anything permutes the numbers below it."""


def pseudonym(config: PhantomConfig, *what: str | int) -> str:
    """An opaque name: 16 hexadecimal digits that say nothing about what they name."""
    text = "/".join(map(str, what))
    key = f"phantom {config.seed}".encode()
    return hashlib.blake2b(text.encode(), key=key, digest_size=8).hexdigest()


def clip_path(
    config: PhantomConfig, patient: int, study: int, number: int, clip_id: str, suffix: str
) -> str:
    """Path of one clip relative to the folder; `number` tells its study's clips apart."""
    if config.layout == "echonet_dynamic":
        return f"Videos/{clip_id}{suffix}"
    if config.layout == "flat":
        return f"clips/{clip_id}{suffix}"
    subject, session = _mimic_id(config, patient, 10), _mimic_id(config, study, 90)
    folder = f"files/p{str(subject)[:2]}/p{subject}/s{session}"
    return f"{folder}/{session}_{instance_number(config, study, number):04d}{suffix}"


def instance_number(config: PhantomConfig, study: int, number: int) -> int:
    """A clip's number in its study as the outside sees it, from 1: it says nothing about views."""
    many = len(config.views) * config.clips_per_view
    order = np.random.default_rng([config.seed, 4, study]).permutation(many)
    return int(order[number]) + 1


def _mimic_id(config: PhantomConfig, number: int, first: int) -> int:
    """Eight digits, different for every number below ten million."""
    shuffled = (number * 7_654_321 + config.seed * 1_234_577 + 4_321) % _MIMIC_IDS
    return first * 1_000_000 + shuffled


def write_lists(config: PhantomConfig, rows: Iterable[dict[str, Any]], out: Path) -> None:
    """Write the list files of a layout from the manifest's rows, by path.

    The manifest's own order would tell the views.
    """
    if config.layout == "flat":
        return
    by_path = sorted(rows, key=lambda row: str(row["uri"]))
    if config.layout == "echonet_dynamic":
        _write_csv(out / "FileList.csv", _ECHONET_COLUMNS, map(_echonet_row, by_path))
    else:
        _write_csv(out / "echo-record-list.csv", _MIMIC_COLUMNS, map(_mimic_row, by_path))


_ECHONET_COLUMNS = (
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
_MIMIC_COLUMNS = ("subject_id", "study_id", "acquisition_datetime", "dicom_filepath")


def _echonet_row(row: dict[str, Any]) -> tuple[Any, ...]:
    labels = (row["lvef"], row["esv_ml"], row["edv_ml"])
    shape = (row["height"], row["width"], round(row["native_fps"]), row["num_frames"])
    return (Path(row["uri"]).stem, *labels, *shape, row["split"].upper())


def _mimic_row(row: dict[str, Any]) -> tuple[Any, ...]:
    *_, subject, session, name = row["uri"].split("/")
    minute = int(name.split("_")[1].split(".")[0]) % 60
    return subject[1:], session[1:], f"{row['study_date']} 10:{minute:02d}:00", row["uri"]


def _write_csv(path: Path, columns: tuple[str, ...], rows: Iterator[tuple[Any, ...]]) -> None:
    aside = path.with_name(f"{path.name}.partial")
    with aside.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    aside.replace(path)
