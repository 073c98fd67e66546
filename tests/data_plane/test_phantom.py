"""Phantom data sets: exact files, the same for any number of processes, resumable."""

from __future__ import annotations

import hashlib
import typing
from pathlib import Path

import av
import numpy as np
import pytest
from pydantic import ValidationError

from echojepa.data.manifest import read_manifest
from echojepa.data.phantom import PhantomConfig, render_clip, write_phantom
from echojepa.data.phantom.views import VIEWS
from echojepa.errors import PhantomError

TINY = PhantomConfig(num_studies=3, size=48, num_frames=10, avi_fraction=0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny phantom, written by one process."""
    out = tmp_path_factory.mktemp("phantom") / "one"
    write_phantom(TINY, out)
    return out


def files(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, by relative path."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def decode(path: Path) -> np.ndarray:
    """All frames of a video, RGB uint8 [T, H, W, 3]."""
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def test_files_hold_the_rendered_frames(folder: Path) -> None:
    rows = read_manifest(folder / "manifest.parquet").to_pylist()
    assert {Path(row["uri"]).suffix for row in rows} == {".mp4", ".avi"}
    assert len(rows) == 6
    for number, row in enumerate(rows):
        clip = render_clip(TINY, number // 2, row["view"])
        path = folder / row["uri"]
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert float(stream.average_rate) == row["native_fps"] == clip.native_fps
            assert stream.frames == row["num_frames"] == TINY.num_frames
            assert stream.codec.name == ("h264" if path.suffix == ".mp4" else "mjpeg")
        decoded = decode(path)
        assert decoded.shape == (TINY.num_frames, TINY.size, TINY.size, 3)
        assert np.array_equal(decoded[..., 0], decoded[..., 2])
        error = np.square(decoded[..., 0].astype(float) - clip.frames).mean()
        assert 10 * np.log10(255**2 / error) > 33
        assert {name: row[name] for name in clip.labels} == clip.labels
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert row["content_hash"] == f"sha256:{digest}"
        assert (row["doppler"], row["population"]) == ("none", "phantom")


def test_names_carry_no_view_and_no_label(folder: Path) -> None:
    rows = read_manifest(folder / "manifest.parquet").to_pylist()
    for row in rows:
        assert Path(row["uri"]).stem == row["clip_id"]
        for name in ("clip_id", "patient_id", "study_id"):
            assert len(row[name]) == 16 and int(row[name], 16) >= 0
    assert len({row["clip_id"] for row in rows}) == 6
    assert len({row["patient_id"] for row in rows}) == len({row["study_id"] for row in rows}) == 3
    names = "".join(files(folder))
    assert not any(word in names.lower() for word in ("a4c", "psax", "lvef"))


def test_any_number_of_processes_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_phantom(TINY, tmp_path / "two", num_processes=2, progress=lambda *c: calls.append(c))
    assert files(tmp_path / "two") == files(folder)
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_lost_and_half_clips_are_written_again_and_others_kept(tmp_path: Path) -> None:
    config = TINY.model_copy(update={"num_studies": 2, "num_frames": 3})
    write_phantom(config, tmp_path)
    before = files(tmp_path)
    clips = sorted((tmp_path / "clips").iterdir())
    clips[0].unlink()
    clips[1].write_bytes(clips[1].read_bytes()[:-100])
    kept = [clip.stat().st_mtime_ns for clip in clips[2:]]
    (tmp_path / "manifest.parquet").unlink()
    write_phantom(config, tmp_path)
    assert files(tmp_path) == before
    assert [clip.stat().st_mtime_ns for clip in clips[2:]] == kept


def test_a_damaged_record_is_not_trusted(tmp_path: Path) -> None:
    config = TINY.model_copy(update={"num_studies": 1, "num_frames": 3})
    write_phantom(config, tmp_path)
    before = files(tmp_path)
    record = next((tmp_path / "records").iterdir())
    record.write_text(record.read_text()[:40])
    write_phantom(config, tmp_path)
    assert files(tmp_path) == before


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
    assert files(tmp_path) == files(folder)


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(PhantomError, match=r"not empty.*new or empty") as caught:
        write_phantom(TINY, tmp_path)
    assert caught.value.where == str(tmp_path)
    assert set(files(tmp_path)) == {"notes.txt"}


def test_a_folder_with_another_phantom_is_refused(folder: Path) -> None:
    with pytest.raises(PhantomError, match="another seed, size"):
        write_phantom(TINY.model_copy(update={"seed": 1, "size": 64}), folder)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PhantomError, match="can be written") as caught:
        write_phantom(TINY, tmp_path / "file" / "phantom")
    assert caught.value.where == str(tmp_path / "file" / "phantom")
    with pytest.raises(PhantomError, match="num_processes = 0"):
        write_phantom(TINY, tmp_path / "new", num_processes=0)


@pytest.mark.parametrize(
    "bad",
    [
        {"num_studies": 0},
        {"size": 113},
        {"views": ()},
        {"views": ("A4C", "A4C")},
        {"views": ("PLAX",)},
        {"native_fps": (0.0,)},
        {"native_fps": (float("inf"),)},
        {"split_fractions": (0.5, 0.5, 0.5)},
        {"avi_fraction": 1.5},
    ],
)
def test_bad_settings_are_refused(bad: dict[str, typing.Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(bad)) + "|" + "sum to 1"):
        PhantomConfig(**{"num_studies": 1, **bad})


def test_settings_name_exactly_the_known_views() -> None:
    literal = typing.get_args(PhantomConfig.model_fields["views"].annotation)[0]
    assert typing.get_args(literal) == tuple(VIEWS)
