"""Embeddings: each belongs to its clip, and a study's to its readable clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.bench import Bench, changed_manifest
from support.here import Here
from support.paths import contents

from echojepa.data.decode.frames import ReadConfig
from echojepa.data.manifest.file import read_manifest, with_absolute_uris, write_manifest
from echojepa.data.manifest.schema import ClipFilter
from echojepa.embed import EmbedConfig, embed
from echojepa.encoders.ours import OurSource
from echojepa.errors import CheckpointError, ManifestError, StorageError
from echojepa.probes.extraction import Columns, Extractor, Loader
from echojepa.probes.features import FeatureConfig, load_clips, pool

WIDTH = 3 * 48


def config(bench: Bench, out: Path, **changes: Any) -> EmbedConfig:
    """Of the phantom's clips, in three shards."""
    source = OurSource(path=str(bench.encoder))
    settings = {"encoder": source, "manifest": str(bench.manifest), "out": str(out)}
    return EmbedConfig(**{**settings, "shard_rows": 8, **changes})


def with_lost(bench: Bench, folder: Path, lost: set[str]) -> str:
    """A manifest in which the files of some clips do not exist."""
    table = read_manifest(bench.manifest).select(["clip_id", "uri"]).to_pylist()
    uris = [
        str(folder / "gone.mp4" if row["clip_id"] in lost else bench.manifest.parent / row["uri"])
        for row in table
    ]
    return changed_manifest(bench, folder, "uri", uris)


def lines(file: Path, key: str) -> dict[str, dict[str, Any]]:
    """Rows of a table by id."""
    rows = pq.read_table(file).to_pylist()
    found = {row[key]: row for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.fixture(scope="module")
def whole(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings of all clips."""
    out = tmp_path_factory.mktemp("embed") / "out"
    assert embed(config(bench, out), Here()) == (24, 0)
    return out


def test_every_clip_has_the_embedding_of_its_own_video(bench: Bench, whole: Path) -> None:
    """Computed clip by clip, without shards and blocks."""
    encoder, how = OurSource(path=str(bench.encoder)).load(), FeatureConfig()
    found = lines(whole / "clips.parquet", "clip_id")
    manifest = read_manifest(bench.manifest)
    for row in with_absolute_uris(manifest, bench.manifest.parent).to_pylist():
        row["duration_seconds"] = row["duration_seconds"] or row["num_frames"] / row["native_fps"]
        clips = load_clips(row, encoder.clip, how, ReadConfig())
        expected = pool(encoder.encode(clips), how.parts).mean(dim=0)
        line = found.pop(row["clip_id"])
        np.testing.assert_allclose(line["embedding"], expected, rtol=1e-3, atol=1e-5)
        assert (line["patient_id"], line["study_id"]) == (row["patient_id"], row["study_id"])
        assert line["problem"] is None
    assert not found
    type_ = pq.read_schema(whole / "clips.parquet").field("embedding").type
    assert type_.list_size == WIDTH and type_.value_type == pa.float32()


def test_a_study_has_the_mean_of_its_clips(whole: Path) -> None:
    clips = lines(whole / "clips.parquet", "clip_id").values()
    studies = lines(whole / "studies.parquet", "study_id")
    assert len(studies) == 12
    for study, line in studies.items():
        own = [clip for clip in clips if clip["study_id"] == study]
        assert {clip["patient_id"] for clip in own} == {line["patient_id"]}
        assert line["num_clips"] == len(own) == 2
        mean = np.mean([clip["embedding"] for clip in own], axis=0)
        np.testing.assert_allclose(line["embedding"], mean, rtol=1e-5)


def test_the_order_of_the_manifest_is_irrelevant(bench: Bench, whole: Path, tmp_path: Path) -> None:
    table = with_absolute_uris(read_manifest(bench.manifest), bench.manifest.parent)
    order = np.random.default_rng(1).permutation(len(table))
    manifest = write_manifest(table.take(order), tmp_path / "manifest.parquet")
    embed(config(bench, tmp_path / "out", manifest=str(manifest)), Here())
    for name in ("clips.parquet", "studies.parquet"):
        assert pq.read_table(tmp_path / "out" / name) == pq.read_table(whole / name)


def test_an_unreadable_clip_has_a_problem_and_no_embedding(
    bench: Bench, whole: Path, tmp_path: Path
) -> None:
    """One clip of a study, all of another, and those in the last shard alone."""
    before = lines(whole / "clips.parquet", "clip_id")
    ids = sorted(before)
    last, study = before[ids[-1]], before[ids[-3]]["study_id"]
    assert study != last["study_id"]
    lost = {ids[-1], *(i for i in ids if before[i]["study_id"] == study)}
    assert min(map(ids.index, lost)) >= 16
    manifest = with_lost(bench, tmp_path, lost)
    assert embed(config(bench, tmp_path / "out", manifest=manifest), Here()) == (24, 3)
    after = lines(tmp_path / "out" / "clips.parquet", "clip_id")
    for clip_id, line in after.items():
        if clip_id in lost:
            assert line["embedding"] is None
            assert line["problem"].startswith("open: missing: ")
        else:
            assert line == before[clip_id]
    studies = lines(tmp_path / "out" / "studies.parquet", "study_id")
    assert len(studies) == 11 and study not in studies
    (left,) = [i for i in ids if before[i]["study_id"] == last["study_id"] and i not in lost]
    assert studies[last["study_id"]]["num_clips"] == 1
    assert studies[last["study_id"]]["embedding"] == before[left]["embedding"]


def test_where_nothing_can_be_read_the_tables_say_so(bench: Bench, tmp_path: Path) -> None:
    every = set(read_manifest(bench.manifest)["clip_id"].to_pylist())
    manifest = with_lost(bench, tmp_path, every)
    assert embed(config(bench, tmp_path / "out", manifest=manifest), Here()) == (24, 24)
    clips = pq.read_table(tmp_path / "out" / "clips.parquet")
    assert clips["embedding"].null_count == 24 and clips["problem"].null_count == 0
    studies = pq.read_table(tmp_path / "out" / "studies.parquet")
    assert len(studies) == 0
    assert studies.schema.field("embedding").type == clips.schema.field("embedding").type
    assert studies.schema.field("study_id").type == pa.string()


class Interrupted(Here):
    """Stops after some blocks."""

    def extract(
        self, blocks: Sequence[pa.Table], load: Loader, build: Callable[[], Extractor]
    ) -> Iterator[Columns]:
        for number, block in enumerate(super().extract(blocks, load, build)):
            if number == 2:
                raise KeyboardInterrupt
            yield block


def test_an_interrupted_call_is_finished_by_the_same(
    bench: Bench, whole: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed(config(bench, tmp_path), Interrupted())
    assert not (tmp_path / "clips.parquet").exists()
    again = Here()
    assert embed(config(bench, tmp_path), again) == (24, 0)
    assert again.num_blocks == 1
    assert contents(tmp_path) == contents(whole)


def test_only_the_clips_that_are_wanted(bench: Bench, tmp_path: Path) -> None:
    where = ClipFilter(split="val", views=("A4C",))
    assert embed(config(bench, tmp_path, where=where), Here()) == (3, 0)
    rows = read_manifest(bench.manifest).to_pylist()
    wanted = {r["clip_id"] for r in rows if r["split"] == "val" and r["view"] == "A4C"}
    assert set(lines(tmp_path / "clips.parquet", "clip_id")) == wanted


def test_no_clip_at_all_is_an_error(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no clip is of the kind that `where` names"):
        embed(config(bench, tmp_path, where=ClipFilter(split=None, views=("PLAX",))), Here())


def test_studies_of_two_patients_are_not_mixed_up(bench: Bench, tmp_path: Path) -> None:
    studies = ["1"] * 24
    manifest = changed_manifest(bench, tmp_path, "study_id", studies)
    with pytest.raises(ManifestError, match=r"study '1' has clips of several patients"):
        embed(config(bench, tmp_path / "out", manifest=manifest), Here())


def test_what_cannot_be_used_is_said(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not an encoder folder"):
        embed(config(bench, tmp_path, encoder=OurSource(path=str(tmp_path))), Here())
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="features cannot be written"):
        embed(config(bench, tmp_path / "file"), Here())
    (tmp_path / "out" / "clips.parquet" / "blocked").mkdir(parents=True)
    with pytest.raises(StorageError, match="embeddings cannot be written"):
        embed(config(bench, tmp_path / "out"), Here())
