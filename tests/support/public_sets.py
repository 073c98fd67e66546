"""Small folders that are laid out as public data sets are, with real video and NIfTI files."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from support.clips import MJPEG, write_clip

from echojepa.data.datasets.listing import Listing, look_at
from echojepa.data.decode.frames import ReadConfig
from echojepa.data.manifest.file import read_manifest, write_manifest
from echojepa.data.manifest.sieve import Sieve
from echojepa.phantom import PhantomConfig, write_phantom

READ = ReadConfig(patience_seconds=0)
PEDIATRIC_HEADER = "FileName,EF,Sex,Age,Weight,Height,Split"
CHILD = "{name},60.5,F,7,24.5,120,{fold}"
PATIENTS = {"training": "patient0001", "validation": "patient0002", "testing": "patient0003"}
CFG = {
    "ED": "1",
    "ES": "5",
    "NbFrame": "5",
    "Sex": "F",
    "Age": "56",
    "ImageQuality": "Good",
    "EF": "54",
    "FrameRate": "48.4",
}


def written_manifest(listing: Listing, target: Path) -> tuple[Sieve, list[dict[str, Any]]]:
    """The manifest of a listing, written in this process; its rows, and what was sieved out."""
    sieve = Sieve(listing.schema, target.with_suffix(".rejected.parquet"))
    write_manifest(sieve.good(look_at(READ, chunk) for chunk in listing.chunks()), target)
    return sieve, read_manifest(target).to_pylist()


def write_dynamic(root: Path) -> Path:
    """EchoNet-Dynamic by the phantom: six videos, and beside them the phantom's own manifest."""
    config = PhantomConfig(
        num_studies=6,
        size=32,
        num_frames=4,
        views=("A4C",),
        layout="echonet_dynamic",
        avi_fraction=1.0,
        follow_up_fraction=0.0,
        held_out_vendor=None,
        split_fractions=(0.34, 0.33, 0.33),
        seed=2,
    )
    write_phantom(config, root)
    return root


def write_pediatric(root: Path, lists: dict[str, Iterable[str]]) -> Path:
    """EchoNet-Pediatric with the given lines by view; every video that a line names is there."""
    for view in ("A4C", "PSAX"):
        videos = root / view / "Videos"
        videos.mkdir(parents=True)
        lines = list(lists.get(view, ()))
        (root / view / "FileList.csv").write_text("\n".join([PEDIATRIC_HEADER, *lines]) + "\n")
        for line in lines:
            name = line.split(",")[0].removesuffix(".avi")
            if name and "/" not in name:
                write_clip(videos, MJPEG, num_frames=3).rename(videos / f"{name}.avi")
    return root


def sequence(seed: int = 0, size: tuple[int, int, int] = (5, 30, 40)) -> np.ndarray:
    """Grey frames uint8 [T, H, W]: dark but for a bright block at the top and one at the left."""
    frames = np.random.default_rng(seed).integers(0, 120, size, dtype=np.uint8)
    frames[:, :6, 20:] = 220
    frames[:, 12:, :5] = 255
    return frames


def nifti(frames: np.ndarray, zooms: tuple[float, float] = (0.308, 0.308)) -> bytes:
    """A NIfTI file of frames [T, H, W] as CAMUS stores them: [across, down, time]."""
    affine = np.diag([-zooms[0], -zooms[1], 1.0, 1.0])
    return nibabel.Nifti1Image(frames.transpose(2, 1, 0), affine).to_bytes()


def write_camus(root: Path, **changed: str | None) -> Path:
    """CAMUS with a patient per split; None takes a fact away, text changes it."""
    (root / "database_split").mkdir(parents=True)
    for number, (split, patient) in enumerate(PATIENTS.items()):
        (root / "database_split" / f"subgroup_{split}.txt").write_text(f"{patient}\n")
        folder = root / "database_nifti" / patient
        folder.mkdir(parents=True)
        facts = {name: fact for name, fact in {**CFG, **changed}.items() if fact is not None}
        for view, seed in (("2CH", number), ("4CH", number + 10)):
            text = "\n".join(f"{name}: {fact}" for name, fact in facts.items())
            (folder / f"Info_{view}.cfg").write_text(text + "\n")
            content = gzip.compress(nifti(sequence(seed)), mtime=0)
            (folder / f"{patient}_{view}_half_sequence.nii.gz").write_bytes(content)
    return root
