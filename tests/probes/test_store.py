"""Features on disk: keyed, memory-mapped, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from echojepa.data.problem import Problem
from echojepa.data.sampling import ClipConfig
from echojepa.errors import StorageError
from echojepa.probes.features import Shape
from echojepa.probes.store import FeatureStore, fill, read_facts, shards_to_fill

CLIP = ClipConfig(num_frames=4, fps=10.0, size=16)
SHAPE = Shape(windows=2, pooled=3, tokens=4, width=5)
IDS = [f"clip{i:02d}" for i in range(10)]
RNG = np.random.default_rng(0)
POOLED = RNG.normal(size=(10, 2, 3)).astype(np.float32)
TOKENS = torch.from_numpy(RNG.normal(size=(10, 2, 4, 5))).to(torch.bfloat16)
PROBLEMS = ["", "open|missing|no such file", *[""] * 8]


def store(folder: Path) -> FeatureStore:
    """An empty one of ten clips, four to a shard."""
    made = FeatureStore(folder, IDS, SHAPE, 4)
    made.begin({"encoder": "x"}, CLIP)
    return made


def blocks(shards: list[int], made: FeatureStore) -> Iterator[dict[str, Any]]:
    """What an extractor gives of these shards, three clips at a time."""
    rows = np.array([i for shard in shards for i in made.rows_of(shard)])
    for part in np.array_split(rows, -(-len(rows) // 3)):
        yield {
            "clip_id": np.array(IDS, object)[part],
            "problem": np.array(PROBLEMS, object)[part],
            "pooled:a": POOLED[part],
            "tokens:a": TOKENS.view(torch.uint16).numpy()[part],
        }


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_what_was_written_is_read_clip_by_clip(tmp_path: Path) -> None:
    made = store(tmp_path)
    assert made.missing() == [0, 1, 2]
    fill({"a": made}, blocks([0, 1, 2], made))
    found = made.read()
    assert found.clip_ids == IDS
    assert found.problems[1] == Problem("open", "missing", "no such file")
    assert found.readable() == set(IDS) - {"clip01"}
    assert np.array_equal(found.pooled, POOLED)
    assert found.rows_for(["clip07", "nobody", "clip00"]).tolist() == [7, -1, 0]
    assert found.tokens is not None
    rows = np.array([9, 0, 4, 9])
    assert torch.equal(found.tokens(rows), TOKENS[rows].float())
    np.testing.assert_allclose(found.vectors(rows), POOLED[rows].mean(axis=1), rtol=1e-6)


def test_an_interrupted_extraction_ends_with_the_same_bytes(tmp_path: Path) -> None:
    whole, broken = store(tmp_path / "whole"), store(tmp_path / "broken")
    fill({"a": whole}, blocks([0, 1, 2], whole))

    def interrupted() -> Iterator[dict[str, Any]]:
        yield from list(blocks([0, 1, 2], broken))[:2]  # six clips: one shard and a half
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill({"a": broken}, interrupted())
    (tmp_path / "broken" / "00001.partial").write_bytes(b"half of a shard")
    assert broken.missing() == [1, 2]
    fill({"a": broken}, blocks(shards_to_fill({"a": broken}), broken))
    assert bytes_of(tmp_path / "broken") == bytes_of(tmp_path / "whole")


def test_a_folder_of_other_features_is_refused(tmp_path: Path) -> None:
    store(tmp_path).begin({"encoder": "x"}, CLIP)
    with pytest.raises(StorageError, match="holds other features"):
        FeatureStore(tmp_path, IDS, SHAPE, 4).begin({"encoder": "y"}, CLIP)
    assert read_facts(tmp_path) == (CLIP, SHAPE)
    assert read_facts(tmp_path / "nothing") is None
    (tmp_path / "store.json").write_text("{")
    with pytest.raises(StorageError, match="not the facts of a feature store"):
        read_facts(tmp_path)


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    made = store(tmp_path)
    fill({"a": made}, blocks([0, 1, 2], made))
    (tmp_path / "00001.safetensors").write_bytes(b"nonsense")
    with pytest.raises(StorageError, match="Delete the file") as caught:
        made.read()
    assert caught.value.where == str(tmp_path / "00001.safetensors")
    assert made.read([0, 2]).clip_ids == [*IDS[:4], *IDS[8:]]


def test_storage_that_fails_ends_the_extraction(tmp_path: Path) -> None:
    """It is not a bad clip: what is there stays, and the same command goes on later."""
    made = store(tmp_path)
    failing = Problem("storage", "unavailable", '["the bucket is gone", "Wait.", null]').to_text()
    columns = list(blocks([0, 1, 2], made))
    columns[2]["problem"][0] = failing
    with pytest.raises(StorageError, match="the bucket is gone"):
        fill({"a": made}, columns)
    assert made.missing() == [1, 2]


def test_its_size_is_known_beforehand(tmp_path: Path) -> None:
    made = store(tmp_path)
    fill({"a": made}, blocks([0, 1, 2], made))
    on_disk = sum(f.stat().st_size for f in tmp_path.glob("*.safetensors"))
    assert on_disk == pytest.approx(10 * SHAPE.num_bytes, abs=2000)  # three headers


def test_a_shard_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    made = store(tmp_path)
    (tmp_path / "00001.partial").mkdir()
    with pytest.raises(StorageError, match="features cannot be written.*it goes on from here"):
        fill({"a": made}, blocks([0, 1, 2], made))
    (tmp_path / "00001.partial").rmdir()
    fill({"a": made}, blocks(shards_to_fill({"a": made}), made))
    assert np.array_equal(made.read().pooled, POOLED)
