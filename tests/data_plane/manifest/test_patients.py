"""Whom an encoder has seen: digests find patients, and say nothing of anybody else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.clips import clip_rows

from echojepa.data.manifest.file import write_manifest
from echojepa.data.manifest.patients import FILE, PatientDigests
from echojepa.data.manifest.schema import ClipFilter
from echojepa.data.mixture import MixtureConfig
from echojepa.errors import CheckpointError

PATIENTS = ["ann", "ann", "bob", "cyd", "dan", "eve"]
SPLITS = ["train", "train", "train", "val", "test", "train"]
SITES = ["x", "x", "y", "x", "y", "z"]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = clip_rows(6, patient_id=PATIENTS, split=SPLITS, population=SITES)
    return write_manifest(rows, tmp_path / "manifest.parquet")


def test_only_patients_whose_clips_are_used_are_among_them(manifest: Path) -> None:
    everybody = {*PATIENTS, "zoe"}
    assert PatientDigests.of(manifest, ClipFilter()).seen(everybody) == {"ann", "bob", "eve"}
    assert PatientDigests.of(manifest, ClipFilter(split="test")).seen(everybody) == {"dan"}
    mixture = MixtureConfig(shares={"x": 1, "y": 1})
    assert PatientDigests.of(manifest, ClipFilter(), mixture).seen(everybody) == {"ann", "bob"}


def test_they_travel_in_a_folder(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints" / "step_00000002").mkdir(parents=True)
    written = PatientDigests.of(manifest, ClipFilter())
    written.write(tmp_path / "run")
    for folder in ("run", "run/checkpoints/step_00000002"):
        found = PatientDigests.read(tmp_path / folder)
        assert found is not None and found.complete
        assert found.seen(PATIENTS) == {"ann", "bob", "eve"}
    assert PatientDigests.read(tmp_path / "elsewhere" / "a" / "b") is None


def test_nobody_is_named(manifest: Path, tmp_path: Path) -> None:
    """And two runs on the same patients have no digest in common."""
    one, other = (PatientDigests.of(manifest, ClipFilter()) for _ in range(2))
    one.write(tmp_path)
    content = (tmp_path / FILE).read_bytes()
    assert not any(name.encode() in content for name in PATIENTS)
    ((_, first),), ((_, second),) = one.parts.items(), other.parts.items()
    assert len(first) == len(second) == 3
    assert not np.isin(first, second).any()


def test_those_of_the_weights_it_began_with_count_too(manifest: Path, tmp_path: Path) -> None:
    first = PatientDigests.of(manifest, ClipFilter(split="val"))
    both = PatientDigests.of(manifest, ClipFilter()).and_of(first)
    both.write(tmp_path)
    found = PatientDigests.read(tmp_path)
    assert found is not None and found.complete
    assert found.seen(PATIENTS) == {"ann", "bob", "cyd", "eve"}
    unknown = both.and_of(None)
    assert not unknown.complete
    assert not PatientDigests.of(manifest, ClipFilter()).and_of(unknown).complete


def test_a_damaged_list_is_said(manifest: Path, tmp_path: Path) -> None:
    PatientDigests.of(manifest, ClipFilter()).write(tmp_path)
    content = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="list of pretraining patients is damaged"):
        PatientDigests.read(tmp_path)
