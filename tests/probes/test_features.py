"""Features: pooled as documented, keyed by clip, and an unreadable clip keeps its row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from echojepa.data.corrupt import GaussianShadow
from echojepa.data.decode.frames import ReadConfig
from echojepa.data.manifest.file import read_manifest, with_absolute_uris
from echojepa.data.sampling import ClipConfig
from echojepa.data.video_file import write_video
from echojepa.encoders.frozen import PooledFeatures, TokenFeatures
from echojepa.encoders.ours import UntrainedSource
from echojepa.errors import ClipError
from echojepa.models.attention import Grid
from echojepa.models.encoder import EncoderConfig
from echojepa.probes.features import (
    ClipLoader,
    FeatureConfig,
    FeatureExtractor,
    TokenConfig,
    Worsening,
    load_clips,
    load_view,
    pool,
)

CLIP = ClipConfig(num_frames=4, fps=10.0, size=16)
TINY = EncoderConfig(width=24, depth=1, num_heads=2, patch_size=8)
HOW = FeatureConfig()
NOTHING_MORE = TokenConfig()
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


def extracted(
    rows: list[dict[str, Any]], how: FeatureConfig, tokens: TokenConfig = NOTHING_MORE
) -> dict[str, Any]:
    """Columns of both encoders."""
    return FeatureExtractor(SOURCES, how, tokens)(ClipLoader(CLIP, how, ReadConfig())(rows))


def by_clip(columns: dict[str, Any], name: str) -> dict[str, np.ndarray]:
    """Features of one encoder by clip id."""
    return dict(zip(columns["clip_id"], columns[f"pooled:{name}"], strict=True))


def test_features_of_a_window_are_those_of_a_clip_of_its_own(rows: list[dict[str, Any]]) -> None:
    how = FeatureConfig(windows=3)
    found = extracted(rows[:2], how)["pooled:random"]
    assert found.shape == (2, 3, 72) and found.dtype == np.float32
    encoder = SOURCES["random"].load()
    for row, features in zip(rows, found, strict=False):
        expected = pool(encoder.encode(load_clips(row, CLIP, how, ReadConfig())), how.parts)
        np.testing.assert_allclose(features, expected.numpy(), atol=1e-5)


def test_every_encoder_gives_one_row_per_clip(rows: list[dict[str, Any]]) -> None:
    columns = extracted(rows, HOW)
    assert set(columns) == {"clip_id", "problem", "pooled:random", "pooled:other"}
    assert columns["clip_id"].tolist() == [row["clip_id"] for row in rows]
    assert columns["problem"].tolist() == [""] * 7
    for name in SOURCES:
        values = columns[f"pooled:{name}"]
        assert values.shape == (7, 2, 72)
        assert np.isfinite(values).all()
        assert len(np.unique(values.mean(axis=1).round(6), axis=0)) == 7
    assert not np.allclose(columns["pooled:random"], columns["pooled:other"])


def test_features_belong_to_clips_not_to_places(rows: list[dict[str, Any]]) -> None:
    order = [4, 0, 6, 2, 5, 1, 3]
    expected, found = extracted(rows, HOW), extracted([rows[i] for i in order], HOW)
    for name in SOURCES:
        one, other = by_clip(expected, name), by_clip(found, name)
        assert one.keys() == other.keys()
        for clip_id in one:
            np.testing.assert_allclose(other[clip_id], one[clip_id], atol=1e-5)


def test_an_unreadable_clip_keeps_its_row(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    expected = extracted(rows, MEAN)
    broken = tmp_path / "secret-name.mp4"
    broken.write_bytes(Path(rows[3]["uri"]).read_bytes()[:200])
    damaged = [dict(row) for row in rows]
    damaged[1]["uri"] = str(tmp_path / "secret-gone.mp4")
    damaged[3]["uri"] = str(broken)
    found = extracted(damaged, MEAN)
    assert found["clip_id"].tolist() == expected["clip_id"].tolist()
    bad = np.array([bool(problem) for problem in found["problem"]])
    assert np.flatnonzero(bad).tolist() == [1, 3]
    for problem in found["problem"][bad]:
        stage, kind, message = problem.split("|", 2)
        assert stage == "open" and kind and message
        assert "secret" not in problem
    for name in ("pooled:random", "pooled:other"):
        assert np.isnan(found[name][bad]).all()
        np.testing.assert_allclose(found[name][~bad], expected[name][~bad], atol=1e-5)


def test_a_batch_of_nothing_but_unreadable_clips(rows: list[dict[str, Any]]) -> None:
    damaged = [{**row, "uri": "/nowhere/at/all.mp4"} for row in rows[:2]]
    found = extracted(damaged, MEAN)["pooled:random"]
    assert np.isnan(found).all() and found.shape == (2, 1, 24)
    with pytest.raises(ClipError):
        load_view(damaged[0], CLIP, ReadConfig())


def test_tokens_are_kept_in_bfloat16_all_or_the_means_of_a_grid(
    rows: list[dict[str, Any]],
) -> None:
    whole = extracted(rows[:3], HOW, TokenConfig(keep="tokens"))["tokens:random"]
    tokens = torch.from_numpy(whole).view(torch.bfloat16).float()
    assert tokens.shape == (3, 2, 8, 24)  # 2 x 2 x 2 tokens of width 24
    clips = load_clips(rows[1], CLIP, HOW, ReadConfig())
    exact = SOURCES["random"].load().encode(clips).tokens
    assert torch.allclose(tokens[1], exact, rtol=2**-8, atol=1e-3)
    cells = extracted(rows[:3], HOW, TokenConfig(keep="grid", grid=(2, 1, 1)))["tokens:random"]
    means = torch.from_numpy(cells).view(torch.bfloat16).float()
    assert torch.allclose(means[1], exact.unflatten(1, (2, 4)).mean(dim=2), rtol=2**-7, atol=2e-3)


def test_the_batch_of_an_encoder_is_no_more_than_it_can_take(rows: list[dict[str, Any]]) -> None:
    """And what comes out does not depend on it."""
    seen: list[int] = []
    source = SOURCES["random"].model_copy(update={"batch": 3})
    extractor = FeatureExtractor({"random": source}, HOW, NOTHING_MORE)
    ((encoder, _),) = extractor._encoders.values()
    encoder.network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    found = extractor(ClipLoader(CLIP, HOW, ReadConfig())(rows))
    assert seen == [3, 3, 3, 3, 2]  # two windows of seven clips
    expected = extracted(rows, HOW)["pooled:random"]
    np.testing.assert_allclose(found["pooled:random"], expected, atol=1e-5)


def test_worse_videos_have_other_features(rows: list[dict[str, Any]]) -> None:
    """The corruption works on whole frames, before they are cut."""
    worsening = Worsening(corruption=GaussianShadow(strength=0.8, sigma=0.25), reencode=False)
    plain = load_clips(rows[0], CLIP, HOW, ReadConfig())
    worse = load_clips(rows[0], CLIP, HOW, ReadConfig(), worsening)
    assert worse.shape == plain.shape
    assert worse.mean() < 0.9 * plain.mean()
    loader = ClipLoader(CLIP, HOW, ReadConfig(), worsening)
    assert np.array_equal(loader(rows[:1])["clips"][0], worse)
