"""Phantom data sets: exact files, the same for any number of processes, resumable."""

from __future__ import annotations

import hashlib
import json
import typing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
from pydantic import ValidationError
from pydicom import dcmread
from pydicom.pixels import pixel_array
from support.paths import contents

from echojepa.data.manifest.file import read_manifest
from echojepa.errors import PhantomError
from echojepa.phantom import PhantomConfig, render_clip, write_phantom
from echojepa.phantom.machine.vendors import VENDORS
from echojepa.phantom.study import write_study

TINY = PhantomConfig(
    seed=14,
    num_studies=3,
    size=48,
    num_frames=8,
    views=("A4C", "PSAX-PM"),
    avi_fraction=0.4,
    dicom_fraction=0.3,
    colour_fraction=0.5,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny phantom, written by one process."""
    out = tmp_path_factory.mktemp("phantom") / "one"
    write_phantom(TINY, out)
    return out


def decode(path: Path) -> np.ndarray:
    """All frames of a file, RGB uint8 [T, H, W, 3]."""
    if path.suffix == ".dcm":
        return pixel_array(path)
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def test_files_hold_the_rendered_frames(folder: Path) -> None:
    rows = read_manifest(folder / "manifest.parquet").to_pylist()
    assert {Path(row["uri"]).suffix for row in rows} == {".mp4", ".avi", ".dcm"}
    assert {row["doppler"] for row in rows} == {"none", "colour"}
    assert len(rows) == 6
    for number, row in enumerate(rows):
        clip = render_clip(TINY, number // 2, row["view"])
        path = folder / row["uri"]
        decoded = decode(path)
        assert decoded.shape == (TINY.num_frames, TINY.size, TINY.size, 3)
        grey = clip.frames.ndim == 3
        frames = np.repeat(clip.frames[..., None], 3, axis=3) if grey else clip.frames
        error = np.square(decoded.astype(float) - frames).mean()
        assert error < (33 if grey else 650), row  # 33 and 20 dB; chroma is halved
        assert {name: row[name] for name in clip.labels} == clip.labels
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert row["content_hash"] == f"sha256:{digest}"
        assert row["doppler"] == ("none" if grey else "colour")
        assert row["population"] == clip.patient.population and row["vendor"] in VENDORS
        assert native_rate(path) == pytest.approx(row["native_fps"]) == clip.native_fps


def native_rate(path: Path) -> float:
    """Frames per second, from the file's own header."""
    if path.suffix == ".dcm":
        return 1000.0 / float(dcmread(path, stop_before_pixels=True).FrameTime)
    with av.open(str(path)) as container:
        return float(container.streams.video[0].average_rate or 0)


def test_names_carry_no_view_and_no_label(folder: Path) -> None:
    rows = read_manifest(folder / "manifest.parquet").to_pylist()
    for row in rows:
        assert Path(row["uri"]).stem == row["clip_id"]
        for name in ("clip_id", "patient_id", "study_id"):
            assert len(row[name]) == 16 and int(row[name], 16) >= 0
    assert len({row["clip_id"] for row in rows}) == 6
    assert len({row["study_id"] for row in rows}) == 3
    assert len({row["patient_id"] for row in rows}) == 2, "one patient came again"
    names = "".join(contents(folder))
    assert not any(word in names.lower() for word in ("a4c", "psax", "lvef"))


def test_any_number_of_workers_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    with ThreadPoolExecutor(2) as pool:
        write_phantom(TINY, tmp_path / "two", pool.map, progress=lambda *c: calls.append(c))
    assert contents(tmp_path / "two") == contents(folder)
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_lost_and_half_clips_are_written_again_and_others_kept(tmp_path: Path) -> None:
    config = TINY.model_copy(update={"num_studies": 2, "num_frames": 3})
    write_phantom(config, tmp_path)
    before = contents(tmp_path)
    clips = sorted((tmp_path / "clips").iterdir())
    clips[0].unlink()
    clips[1].write_bytes(clips[1].read_bytes()[:-100])
    kept = [clip.stat().st_mtime_ns for clip in clips[2:]]
    (tmp_path / "manifest.parquet").unlink()
    write_phantom(config, tmp_path)
    assert contents(tmp_path) == before
    assert [clip.stat().st_mtime_ns for clip in clips[2:]] == kept


def test_a_damaged_record_is_not_trusted(tmp_path: Path) -> None:
    config = TINY.model_copy(update={"num_studies": 1, "num_frames": 3})
    write_phantom(config, tmp_path)
    before = contents(tmp_path)
    record = next((tmp_path / "records").iterdir())
    record.write_text(record.read_text()[:40])
    write_phantom(config, tmp_path)
    assert contents(tmp_path) == before


def test_an_interrupted_call_leaves_whole_studies(tmp_path: Path) -> None:
    config = TINY.model_copy(update={"num_frames": 2})

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantom(config, tmp_path, progress=stop)
    assert not (tmp_path / "manifest.parquet").exists()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "clips").iterdir()}
    assert len(times) == 2
    write_phantom(config, tmp_path)
    assert (
        times.items() <= {p: p.stat().st_mtime_ns for p in (tmp_path / "clips").iterdir()}.items()
    )


def test_studies_can_be_added_later(folder: Path, tmp_path: Path) -> None:
    write_phantom(TINY.model_copy(update={"num_studies": 1}), tmp_path)
    write_phantom(TINY, tmp_path)
    assert contents(tmp_path) == contents(folder)


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(PhantomError, match=r"not empty.*new or empty") as caught:
        write_phantom(TINY, tmp_path)
    assert caught.value.where == str(tmp_path)
    assert set(contents(tmp_path)) == {"notes.txt"}


def test_a_folder_with_another_phantom_is_refused(folder: Path) -> None:
    with pytest.raises(PhantomError, match="another seed, size"):
        write_phantom(TINY.model_copy(update={"seed": 1, "size": 64}), folder)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PhantomError, match="can be written") as caught:
        write_phantom(TINY, tmp_path / "file" / "phantom")
    assert caught.value.where == str(tmp_path / "file" / "phantom")


@pytest.mark.parametrize(
    "bad",
    [
        {"num_studies": 0},
        {"size": 113},
        {"views": ()},
        {"views": ("A4C", "A4C")},
        {"views": ("PLAX2",)},
        {"vendors": ("aster",), "held_out_vendor": "aster"},
        {"paediatric_fraction": 0.6, "obese_fraction": 0.6},
        {"avi_fraction": 0.6, "dicom_fraction": 0.6},
        {"layout": "echonet_dynamic"},
        {"layout": "mimic_iv_echo"},
        {"native_fps": (0.0,)},
        {"native_fps": (float("inf"),)},
        {"split_fractions": (0.5, 0.5, 0.5)},
        {"avi_fraction": 1.5},
    ],
)
def test_bad_settings_are_refused(bad: dict[str, typing.Any]) -> None:
    with pytest.raises(ValidationError, match="|".join([*bad, "sum to 1", "EchoNet"])):
        PhantomConfig(**{"num_studies": 1, **bad})


def test_another_version_is_not_continued(folder: Path, tmp_path: Path) -> None:
    settings = json.loads((folder / "phantom.json").read_text())
    (tmp_path / "phantom.json").write_text(json.dumps({**settings, "version": 1}))
    with pytest.raises(PhantomError, match="another version"):
        write_phantom(TINY, tmp_path)


def test_the_held_out_vendor_is_in_the_test_split_only(tmp_path: Path) -> None:
    config = TINY.model_copy(
        update={"num_studies": 16, "num_frames": 1, "vendors": ("aster", "elara"), "size": 32}
    )
    rows = read_manifest(write_phantom(config, tmp_path)).to_pylist()
    splits = {vendor: {r["split"] for r in rows if r["vendor"] == vendor} for vendor in VENDORS}
    assert splits["elara"] == {"test"} and "train" in splits["aster"]
    assert "elara is in the split test" in (tmp_path / "card.md").read_text()
    studies = {row["study_id"]: row["patient_id"] for row in rows}
    assert len(studies) == 16 > len(set(studies.values())), "some patients come again"
    assert len({r["vendor"] for r in rows if r["patient_id"] == rows[0]["patient_id"]}) == 1


def test_a_smaller_phantom_does_not_replace_a_larger(folder: Path) -> None:
    with pytest.raises(PhantomError, match="holds 3 studies, more than 2"):
        write_phantom(TINY.model_copy(update={"num_studies": 2}), folder)


def test_a_first_call_killed_at_once_is_repeated_by_the_same(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "phantom.json.partial").write_text("{")
    write_phantom(TINY, tmp_path)
    assert contents(tmp_path) == contents(folder)


def test_damaged_settings_are_said(tmp_path: Path) -> None:
    (tmp_path / "phantom.json").write_text("")
    with pytest.raises(PhantomError, match="its phantom.json is damaged"):
        write_phantom(TINY, tmp_path)


def test_a_folder_that_another_node_does_not_see_is_said(tmp_path: Path) -> None:
    with pytest.raises(PhantomError, match=r"does not see the folder.*all nodes"):
        write_study(TINY, tmp_path, 0)
