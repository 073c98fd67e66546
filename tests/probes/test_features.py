"""Features: pooled as documented, keyed by clip, and an unreadable clip keeps its row."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch

from echojepa.data.decode.frames import ReadConfig, open_video
from echojepa.data.manifest.file import read_manifest, with_absolute_uris
from echojepa.data.sampling import ClipConfig
from echojepa.data.video_file import write_video
from echojepa.encoders.frozen import PooledFeatures, TokenFeatures
from echojepa.encoders.ours import UntrainedSource
from echojepa.errors import ClipError
from echojepa.models.attention import Grid
from echojepa.models.encoder import EncoderConfig
from echojepa.probes.features import FeatureConfig, FeatureExtractor, load_clips, load_view, pool

CLIP = ClipConfig(num_frames=4, fps=10.0, size=16)
TINY = EncoderConfig(width=24, depth=1, num_heads=2, patch_size=8)
HOW = FeatureConfig()
MEAN = FeatureConfig(windows=1, parts=("mean",))
SOURCES = {
    name: UntrainedSource(encoder=TINY, clip=CLIP, random_seed=seed)
    for name, seed in (("random", 1), ("other", 2))
}


@pytest.fixture
def rows(phantom_manifest: Path) -> list[dict[str, Any]]:
    """Seven rows of the phantom."""
    table = with_absolute_uris(read_manifest(phantom_manifest), phantom_manifest.parent)
    found: list[dict[str, Any]] = table.slice(0, 7).to_pylist()
    return found


def by_clip(columns: dict[str, Any], name: str) -> dict[str, np.ndarray]:
    """Features of one encoder by clip id."""
    return dict(zip(columns["clip_id"], columns[name], strict=True))


def test_the_mean_of_all_tokens() -> None:
    tokens = torch.arange(24.0).reshape(1, 6, 4)
    features = TokenFeatures(tokens, Grid(2, 3, 1))
    assert pool(features, ["mean"]).tolist() == [[10.0, 11.0, 12.0, 13.0]]


def test_motion_is_seen_place_by_place() -> None:
    """Two places that move against each other: their mean stands still, each of them does not."""
    tokens = torch.zeros(2, 6, 3)  # 3 times of 2 places
    tokens[0, :, 0] = torch.tensor([1.0, -1.0, 4.0, -4.0, 7.0, -7.0])
    tokens[0, :, 1] = torch.tensor([-5.0, 5.0, -5.0, 5.0, -5.0, 5.0])  # differs in space alone
    pooled = pool(TokenFeatures(tokens, Grid(3, 1, 2)), ["motion", "texture"])
    assert pooled.shape == (2, 6)
    motion, texture = pooled[0, :3].tolist(), pooled[0, 3:].tolist()
    assert motion == pytest.approx([6**0.5, 0.0, 0.0])
    assert texture == pytest.approx([4.0, 5.0, 0.0])
    assert not pooled[1].any()


def test_parts_stand_in_the_order_asked_for() -> None:
    features = TokenFeatures(torch.randn(2, 8, 5), Grid(2, 2, 2))
    whole = pool(features, ["texture", "mean"])
    assert torch.equal(whole[:, :5], pool(features, ["texture"]))
    assert torch.equal(whole[:, 5:], pool(features, ["mean"]))


def test_pooling_is_float32_and_takes_a_single_time_step() -> None:
    tokens = torch.ones(2, 3, 4, dtype=torch.bfloat16)
    pooled = pool(TokenFeatures(tokens, Grid(1, 3, 1)), ["mean", "motion"])
    assert pooled.dtype == torch.float32
    assert pooled.tolist() == [[1.0] * 4 + [0.0] * 4] * 2


def test_features_that_are_pooled_already_stay_as_they_are() -> None:
    values = torch.randn(2, 5)
    assert torch.equal(pool(PooledFeatures(values), ["motion"]), values)


def test_the_view_is_the_middle_of_the_video(tmp_path: Path) -> None:
    frames = np.zeros((21, 32, 64), np.uint8)
    frames[:, :, 16:48] = 10 * np.arange(21, dtype=np.uint8)[:, None, None] + 20
    write_video(frames, 10.0, tmp_path / "wide.avi")
    shape = {
        "num_frames": 21,
        "native_fps": 10.0,
        "duration_seconds": 2.1,
        "height": 32,
        "width": 64,
    }
    view = load_view({"uri": str(tmp_path / "wide.avi"), **shape}, CLIP, ReadConfig())
    assert view.shape == (4, 16, 16, 3)
    wanted = [10 * frame + 20 for frame in (9, 10, 11, 12)]  # 8.5 to 11.5, rounded
    centre = view[:, 4:12, 4:12].mean(axis=(1, 2, 3))
    assert centre.tolist() == pytest.approx(wanted, abs=6)
    assert view[0].min() > 60  # the black sides are cut off


def moving_bar(folder: Path) -> dict[str, Any]:
    """A wide video of 2.1 s whose brightness is its time: 21 frames, 32 x 64."""
    frames = np.zeros((21, 32, 64), np.uint8)
    frames[:] = 10 * np.arange(21, dtype=np.uint8)[:, None, None] + 20
    write_video(frames, 10.0, folder / "bar.avi")
    shape = {"num_frames": 21, "native_fps": 10.0, "duration_seconds": 2.1}
    return {"uri": str(folder / "bar.avi"), **shape, "height": 32, "width": 64}


@pytest.mark.parametrize("windows", [2, 3, 8])
def test_windows_lie_evenly_from_the_start_to_the_end(tmp_path: Path, windows: int) -> None:
    """Overlapping ones, too."""
    clips = load_clips(moving_bar(tmp_path), CLIP, FeatureConfig(windows=windows), ReadConfig())
    assert clips.shape == (windows, 4, 16, 16, 3)
    starts = np.linspace(0, 17, windows)
    wanted = 10 * (starts[:, None] + np.arange(4)) + 20
    assert clips.mean(axis=(2, 3, 4)) == pytest.approx(wanted, abs=6 + 5)  # half a frame is 5


def test_a_letterbox_shows_the_whole_frame(tmp_path: Path) -> None:
    how = FeatureConfig(windows=1, frame="letterbox")
    (clip,) = load_clips(moving_bar(tmp_path), CLIP, how, ReadConfig())
    assert clip.shape == (4, 16, 16, 3)
    assert clip[:, 5:11].min() > 60  # 16 x 8 of picture
    assert clip[:, :3].max() < 10 and clip[:, 13:].max() < 10


def test_features_of_a_video_are_the_mean_of_its_windows(rows: list[dict[str, Any]]) -> None:
    """Which are those of clips of their own."""
    how = FeatureConfig(windows=3)
    extract = FeatureExtractor({"random": SOURCES["random"]}, how, ReadConfig())
    found = extract(rows[:2])["random"]
    encoder = SOURCES["random"].load()
    for row, features in zip(rows, found, strict=False):
        clips = load_clips(row, CLIP, how, ReadConfig())
        expected = pool(encoder.encode(clips), how.parts).mean(dim=0)
        np.testing.assert_allclose(features, expected.numpy(), atol=1e-5)


def test_every_encoder_gives_one_row_per_clip(rows: list[dict[str, Any]]) -> None:
    columns = FeatureExtractor(SOURCES, HOW, ReadConfig())(rows)
    assert set(columns) == {"clip_id", "problem", "random", "other"}
    assert columns["clip_id"].tolist() == [row["clip_id"] for row in rows]
    assert columns["problem"].tolist() == [""] * 7
    for name in SOURCES:
        assert columns[name].shape == (7, 72)
        assert np.isfinite(columns[name]).all()
        assert len(np.unique(columns[name].round(6), axis=0)) == 7
    assert not np.allclose(columns["random"], columns["other"])


def test_features_belong_to_clips_not_to_places(rows: list[dict[str, Any]]) -> None:
    extract = FeatureExtractor(SOURCES, HOW, ReadConfig())
    order = [4, 0, 6, 2, 5, 1, 3]
    expected, found = extract(rows), extract([rows[i] for i in order])
    for name in SOURCES:
        one, other = by_clip(expected, name), by_clip(found, name)
        assert one.keys() == other.keys()
        for clip_id in one:
            np.testing.assert_allclose(other[clip_id], one[clip_id], atol=1e-5)


def test_an_unreadable_clip_keeps_its_row(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    extract = FeatureExtractor(SOURCES, MEAN, ReadConfig())
    expected = extract(rows)
    broken = tmp_path / "secret-name.mp4"
    broken.write_bytes(Path(rows[3]["uri"]).read_bytes()[:200])
    damaged = [dict(row) for row in rows]
    damaged[1]["uri"] = str(tmp_path / "secret-gone.mp4")
    damaged[3]["uri"] = str(broken)
    found = extract(damaged)
    assert found["clip_id"].tolist() == expected["clip_id"].tolist()
    bad = np.array([bool(problem) for problem in found["problem"]])
    assert np.flatnonzero(bad).tolist() == [1, 3]
    for problem in found["problem"][bad]:
        stage, kind, message = problem.split("|", 2)
        assert stage == "open" and kind and message
        assert "secret" not in problem
    for name in SOURCES:
        assert np.isnan(found[name][bad]).all()
        np.testing.assert_allclose(found[name][~bad], expected[name][~bad], atol=1e-5)


def test_a_batch_of_nothing_but_unreadable_clips(rows: list[dict[str, Any]]) -> None:
    damaged = [{**row, "uri": "/nowhere/at/all.mp4"} for row in rows[:2]]
    found = FeatureExtractor(SOURCES, MEAN, ReadConfig())(damaged)
    assert np.isnan(found["random"]).all() and found["random"].shape == (2, 24)
    with pytest.raises(ClipError):
        load_view(damaged[0], CLIP, ReadConfig())


def test_an_encoder_that_wants_other_frames_gets_them(rows: list[dict[str, Any]]) -> None:
    large = UntrainedSource(
        encoder=TINY, clip=CLIP.model_copy(update={"size": 32, "num_frames": 6}), random_seed=1
    )
    found = FeatureExtractor({**SOURCES, "large": large}, MEAN, ReadConfig())(rows)
    assert found["large"].shape == (7, 24)
    assert not np.allclose(found["large"], found["random"])


def test_several_encoders_share_one_decoding(rows: list[dict[str, Any]]) -> None:
    extract = FeatureExtractor(SOURCES, MEAN, ReadConfig())
    decoded = 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal decoded
        decoded += event == "call" and frame.f_code is open_video.__code__

    sys.setprofile(count)
    try:
        extract(rows)
    finally:
        sys.setprofile(None)
    assert decoded == len(rows)
