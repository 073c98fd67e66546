"""NIfTI sequences come back from every decoder as they were: values, orientation, shape, time."""

from __future__ import annotations

import gzip
from fractions import Fraction
from pathlib import Path

import nibabel
import numpy as np
import pytest
from support.clips import error_of, probe, read_frames, written
from support.public_sets import READ, nifti, sequence

from echojepa.data.datasets.nifti_video import ROUNDED, convert, lossless_video, read_sequence
from echojepa.data.decode.frames import DecoderName
from echojepa.errors import ClipError


def grey_ramp() -> np.ndarray:
    """All 256 grey values beside each other, in frames of an odd size, [3, 17, 257]."""
    values = np.arange(257) % 256
    return np.stack([np.tile(np.roll(values, 80 * t), (17, 1)) for t in range(3)]).astype(np.uint8)


def as_rgb(frames: np.ndarray) -> np.ndarray:
    return np.repeat(frames[..., None], 3, axis=3)


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_every_grey_value_comes_back(tmp_path: Path, decoder: DecoderName) -> None:
    path = written(tmp_path / "a.mp4", lossless_video(grey_ramp(), 55.4, Fraction(1)))
    assert np.array_equal(read_frames(str(path), [0, 1, 2], decoder), as_rgb(grey_ramp()))
    assert np.array_equal(read_frames(str(path), [2], decoder), as_rgb(grey_ramp()[2:]))


@pytest.mark.parametrize("fps", [48.4, 55.4, 30000 / 1001, 101.0])
def test_frame_times_are_exact(tmp_path: Path, fps: float) -> None:
    path = written(tmp_path / "a.mp4", lossless_video(grey_ramp(), fps, Fraction(1)))
    found = probe(str(path))
    assert found.native_fps == pytest.approx(fps, rel=1e-6)
    assert found.duration_seconds == pytest.approx(3 / fps, rel=1e-6)


@pytest.mark.parametrize("is_compressed", [True, False])
def test_the_picture_is_upright(tmp_path: Path, is_compressed: bool) -> None:
    """The bright blocks at the top and at the left are there again."""
    content = nifti(sequence())
    assert nibabel.Nifti1Image.from_bytes(content).shape == (40, 30, 5), "across, down, time"
    source = written(tmp_path / "a", gzip.compress(content) if is_compressed else content)
    assert convert(str(source), tmp_path / "a.mp4", 50.0, READ) == ()
    shown = read_frames(str(tmp_path / "a.mp4"), range(5))[..., 0]
    assert shown.shape == (5, 30, 40)
    assert (shown[:, :6, 20:] == 220).all() and (shown[:, 12:, :5] == 255).all()
    assert np.array_equal(shown, sequence())


@pytest.mark.parametrize(
    ("zooms", "shape"),
    [
        ((0.308, 0.308), (30, 40)),
        ((0.308, 0.30801), (30, 40)),
        ((0.308, 0.154), (30, 80)),
        ((0.154, 0.308), (60, 40)),
        ((0.3, 0.2), (30, 60)),
    ],
)
def test_pixels_are_shown_square(
    tmp_path: Path, zooms: tuple[float, float], shape: tuple[int, int]
) -> None:
    source = written(tmp_path / "a", nifti(sequence(), zooms))
    convert(str(source), tmp_path / "a.mp4", 50.0, READ)
    found = probe(str(tmp_path / "a.mp4"))
    assert (found.height, found.width) == shape
    shown = read_frames(str(tmp_path / "a.mp4"), [0])[0, ..., 0]
    assert shown.shape == shape
    across, down = shape[1] // 40, shape[0] // 30
    inside = shown[12 * down + 3 :, : 5 * across - 3]
    assert (inside >= 253).all(), "the bright block at the left is still there"


def test_fractions_of_grey_values_are_rounded_and_noted(tmp_path: Path) -> None:
    frames = sequence().astype(np.float32)
    frames[:, 20, 20] = 99.6
    frames[:, 21, 20] = -0.2
    source = written(tmp_path / "a", nifti(frames))
    assert convert(str(source), tmp_path / "a.mp4", 50.0, READ) == (ROUNDED,)
    shown = read_frames(str(tmp_path / "a.mp4"), [0])[0, ..., 0]
    assert (shown[20, 20], shown[21, 20]) == (100, 0)
    whole = written(tmp_path / "b", nifti(sequence().astype(np.float32)))
    assert convert(str(whole), tmp_path / "b.mp4", 50.0, READ) == ()


def with_value(value: float) -> np.ndarray:
    frames = sequence().astype(np.float64)
    frames[0, 0, 0] = value
    return frames


@pytest.mark.parametrize(
    "frames",
    [
        with_value(256.0),
        with_value(-1.0),
        with_value(np.nan),
        with_value(np.inf),
        sequence() / 255.0,
        np.zeros((5, 30, 40), np.uint8),
        sequence()[0].T[None, None].T,
    ],
    ids=["bright", "negative", "nan", "inf", "shares", "black", "four axes"],
)
def test_values_that_are_no_grey_levels(frames: np.ndarray) -> None:
    image = nibabel.Nifti1Image(frames.transpose(2, 1, 0) if frames.ndim == 3 else frames, None)
    image.header.set_zooms((0.3, 0.3, 1.0, 1.0)[: frames.ndim])
    assert error_of(lambda: read_sequence(image.to_bytes())) == ("decode", "unsupported")


def test_pixels_without_a_size_or_of_an_impossible_shape() -> None:
    flat = bytearray(nifti(sequence()))
    flat[80:84] = b"\0\0\0\0"  # pixdim[1]
    assert error_of(lambda: read_sequence(bytes(flat))) == ("open", "unsupported")
    wide = nifti(sequence(), (3.0, 0.3))
    assert error_of(lambda: read_sequence(wide)) == ("open", "unsupported")


def test_damaged_files_are_bad_clips_and_nothing_else() -> None:
    """Cut off or overwritten anywhere: an error of the clip, or pictures, but no crash."""
    content = nifti(sequence())
    packed = gzip.compress(content)
    for cut in (0, 1, 2, 100, 347, 352, len(content) // 2):
        with pytest.raises(ClipError):
            read_sequence(content[:cut])
        with pytest.raises(ClipError):
            read_sequence(packed[: min(cut, len(packed) - 1)])
    rng = np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(content)
        for place in rng.integers(0, 352, 4):
            changed[place] = rng.integers(256)
        try:
            read_sequence(bytes(changed))
        except ClipError:
            continue
    for _ in range(100):
        changed = bytearray(packed)
        for place in rng.integers(0, len(packed), 4):
            changed[place] = rng.integers(256)
        with pytest.raises(ClipError):
            read_sequence(bytes(changed))
