"""Extraction: encoders that want the same clips share them, nothing is computed twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support.here import Here

from echojepa.data.manifest.file import read_manifest, ready_to_read
from echojepa.data.sampling import ClipConfig
from echojepa.encoders.ours import OurSource, UntrainedSource
from echojepa.encoders.source import Source
from echojepa.errors import CheckpointError, StorageError
from echojepa.models.encoder import EncoderConfig, VideoEncoder
from echojepa.models.weights import save_encoder
from echojepa.probes.extraction import ExtractConfig, extract
from echojepa.probes.features import TokenConfig

CLIP = ClipConfig(num_frames=4, fps=10.0, size=16)
TINY = EncoderConfig(width=24, depth=1, num_heads=2, patch_size=8)
ONE, OTHER = (UntrainedSource(encoder=TINY, clip=CLIP, random_seed=seed) for seed in (1, 2))
CONFIG = ExtractConfig(shard_rows=8)


@pytest.fixture
def rows(phantom_manifest: Path) -> pa.Table:
    """Of 24 clips."""
    batches = read_manifest(phantom_manifest).to_batches()
    return pa.Table.from_batches([ready_to_read(b, phantom_manifest.parent) for b in batches])


def test_encoders_that_want_the_same_clips_share_one_decoding(
    rows: pa.Table, tmp_path: Path
) -> None:
    here = Here()
    larger = CLIP.model_copy(update={"size": 32})
    sources: dict[str, Source] = {
        "one": ONE,
        "other": OTHER,
        "large": ONE.model_copy(update={"clip": larger}),
    }
    found = extract(rows, sources, CONFIG, tmp_path, here)
    assert list(found.stores) == ["one", "other", "large"] and not found.failed
    assert here.num_blocks == 2 * 3  # three shards for each of the two kinds of clips
    features = {name: store.read() for name, store in found.stores.items()}
    for one in features.values():
        assert one.clip_ids == sorted(rows["clip_id"].to_pylist())
        assert one.pooled.shape == (24, 2, 72)
    assert not np.allclose(features["one"].pooled, features["large"].pooled)


def test_what_is_there_is_not_computed_again(rows: pa.Table, tmp_path: Path) -> None:
    here = Here()
    before = extract(rows, {"a": ONE}, CONFIG, tmp_path, here).stores["a"].read()
    again = Here()
    shuffled = rows.take(pa.array(np.random.default_rng(0).permutation(24)))
    after = extract(shuffled, {"a": ONE, "b": OTHER}, CONFIG, tmp_path, again).stores["a"].read()
    assert np.array_equal(before.pooled, after.pooled)
    assert again.num_blocks == 3  # of the other encoder
    extract(rows, {"a": ONE, "b": OTHER}, CONFIG, tmp_path, again)
    assert again.num_blocks == 3


def test_a_killed_extraction_goes_on_and_ends_with_the_same_bytes(
    rows: pa.Table, tmp_path: Path
) -> None:
    whole = extract(rows, {"a": ONE}, CONFIG, tmp_path / "whole", Here()).stores["a"]
    broken = extract(rows, {"a": ONE}, CONFIG, tmp_path / "broken", Here()).stores["a"]
    (broken.folder / "00001.safetensors").unlink()
    here = Here()
    extract(rows, {"a": ONE}, CONFIG, tmp_path / "broken", here)
    assert here.num_blocks == 1
    assert broken.folder.name == whole.folder.name
    for file in whole.folder.iterdir():
        assert (broken.folder / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.mark.parametrize("change", ["weights", "videos", "windows"])
def test_other_weights_videos_or_settings_are_other_features(
    rows: pa.Table, tmp_path: Path, change: str
) -> None:
    folder = tmp_path / "encoder"
    source, config = OurSource(path=str(folder)), CONFIG

    def saved() -> None:
        save_encoder(folder, TINY, VideoEncoder(TINY).state_dict(), CLIP.model_dump(), "")

    saved()
    first = extract(rows, {"a": source}, config, tmp_path / "f", Here()).stores["a"]
    if change == "weights":  # under the same path
        saved()
    elif change == "videos":
        other = pa.array([*rows["uri"].to_pylist()[1:], rows["uri"][0].as_py()])
        rows = rows.set_column(rows.column_names.index("uri"), "uri", other)
    else:
        how = config.features.model_copy(update={"windows": 1})
        config = config.model_copy(update={"features": how})
    second = extract(rows, {"a": source}, config, tmp_path / "f", Here()).stores["a"]
    assert second.folder != first.folder
    assert not np.array_equal(first.read().pooled, second.read().pooled)


def test_too_many_bytes_are_refused_before_anything_is_computed(
    rows: pa.Table, tmp_path: Path
) -> None:
    here = Here()
    config = ExtractConfig(tokens=TokenConfig(keep="tokens"), max_feature_bytes=24 * 1000)
    with pytest.raises(StorageError, match="features of 24 clips take more than .*'a' 3.*e-05 GiB"):
        extract(rows, {"a": ONE}, config, tmp_path, here)
    assert here.num_blocks == 0 and not list(tmp_path.iterdir())


def test_an_encoder_that_cannot_be_loaded_does_not_cost_the_others(
    rows: pa.Table, tmp_path: Path
) -> None:
    sources = {"gone": OurSource(path=str(tmp_path / "gone")), "there": ONE}
    found = extract(rows, sources, CONFIG, tmp_path / "f", Here())
    assert set(found.stores) == {"there"}
    assert isinstance(found.failed["gone"], CheckpointError)
