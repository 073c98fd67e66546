"""A block of clips: decoded as drawn, bad clips in their rows, and proven to be the planned one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pydicom
import pytest
from support.clips import FRAGMENTED, LONG_GOP, cut_off, probe, shown

from echojepa.data.block import BlockDecoder, Columns, DataConfig, check_block
from echojepa.data.clip_table import ClipTable, open_clips
from echojepa.data.decode.frames import ReadConfig, open_video
from echojepa.data.manifest.file import read_manifest, with_absolute_uris, write_manifest
from echojepa.data.manifest.schema import ClipFilter
from echojepa.data.sampling import ClipConfig, crop_resize, random_view, rows_of
from echojepa.data.stream import (
    PADDING,
)
from echojepa.errors import BrokenInvariantError, ManifestError
from echojepa.randomness import Seeds

SMALL = ClipConfig(num_frames=4, fps=10.0, size=48)


SEED = 11


def config(manifest: Path, **changes: Any) -> DataConfig:
    """All clips of a manifest, cut small."""
    everything = {"where": ClipFilter(split=None), "clip": SMALL, **changes}
    return DataConfig(manifest=str(manifest), **everything)


def altered(phantom: Path, folder: Path, change: dict[int, dict[str, Any]]) -> Path:
    """The phantom's manifest in another folder, some rows changed."""
    table = with_absolute_uris(read_manifest(phantom), phantom.parent)
    rows = table.to_pylist()
    for number, values in change.items():
        rows[number].update(values)
    return write_manifest(pa.Table.from_pylist(rows, table.schema), folder / "manifest.parquet")


def samples_of(rows: list[int], num_clips: int, seed: int = SEED) -> list[int]:
    """The sample of the first epoch in which each row comes up."""
    order = rows_of(np.arange(num_clips), num_clips, Seeds(seed)).tolist()
    return [order.index(row) for row in rows]


def equal(one: Columns, other: Columns) -> bool:
    """Whether two blocks are the same to the byte."""
    return list(one) == list(other) and all(np.array_equal(one[k], other[k]) for k in one)


def test_a_block_holds_what_was_drawn(phantom_manifest: Path) -> None:
    data = config(phantom_manifest)
    s = np.array([0, 5, 23, 24, 31], np.int64)  # across the border of an epoch
    block = BlockDecoder(data, Seeds(SEED))(s)
    assert {name: (column.dtype, column.shape) for name, column in block.items()} == {
        "s": (np.int64, (5,)),
        "clip_id": (object, (5,)),
        "weight": (np.float32, (5,)),
        "held_frames": (np.int32, (5,)),
        "problem": (object, (5,)),
        "clip": (np.uint8, (5, 4, 48, 48, 3)),
    }
    assert block["s"].tolist() == s.tolist()
    assert block["weight"].tolist() == [1.0] * 5
    assert block["problem"].tolist() == [""] * 5
    clips = data.clips()
    for i, row_number in enumerate(rows_of(s, len(clips), Seeds(SEED)).tolist()):
        row = clips.row(row_number)
        window, box = random_view(Seeds(SEED), int(s[i]), row, SMALL)
        frames = open_video(row["uri"]).frames_at(window.seconds)
        assert block["clip_id"][i] == row["clip_id"]
        assert block["held_frames"][i] == window.held_frames == 0
        assert np.array_equal(block["clip"][i], crop_resize(frames, box, 48))
        assert block["clip"][i].std() > 5


def test_the_same_sample_has_the_same_bytes_anywhere(phantom_manifest: Path) -> None:
    data = config(phantom_manifest)
    one, other = BlockDecoder(data, Seeds(SEED)), BlockDecoder(data, Seeds(SEED))
    s = np.arange(10, 16)
    together = one(s)
    assert equal(together, one(s))
    assert equal(together, other(s))
    backwards = other(s[::-1].copy())
    assert equal(together, {name: column[::-1] for name, column in backwards.items()})
    alone = other(s[2:3])
    assert np.array_equal(alone["clip"][0], together["clip"][2])
    another_seed = BlockDecoder(data, Seeds(SEED + 1))(s)
    assert not np.array_equal(another_seed["clip"], together["clip"])


def test_decoders_agree(phantom_manifest: Path) -> None:
    s = np.arange(6)
    auto = BlockDecoder(config(phantom_manifest), Seeds(SEED))(s)
    pyav, decord = (
        BlockDecoder(config(phantom_manifest, read=ReadConfig(decoder=name)), Seeds(SEED))(s)
        for name in ("pyav", "decord")
    )
    assert equal(auto, pyav)
    assert decord["weight"].tolist() == [1.0] * 6
    assert np.abs(decord["clip"].astype(int) - auto["clip"]).mean() < 2


def test_held_frames_are_counted(phantom_manifest: Path) -> None:
    long = ClipConfig(num_frames=16, fps=10.0, size=48)  # 1.5 s of at most 0.96 s
    block = BlockDecoder(config(phantom_manifest, clip=long), Seeds(SEED))(np.arange(4))
    assert block["weight"].tolist() == [1.0] * 4
    for held, pixels in zip(block["held_frames"], block["clip"], strict=True):
        assert 0 < held < 16
        assert (pixels[-held:] == pixels[-held]).all()
    rejecting = long.model_copy(update={"short": "reject"})
    rejected = BlockDecoder(config(phantom_manifest, clip=rejecting), Seeds(SEED))(np.arange(4))
    assert rejected["weight"].tolist() == [0.0] * 4
    for problem in rejected["problem"]:
        assert problem.startswith("sample|too_short|24 frames at ")


def test_padding_rows(phantom_manifest: Path) -> None:
    decoder = BlockDecoder(config(phantom_manifest), Seeds(SEED))
    block = decoder(np.array([7, PADDING, 8, PADDING]))
    assert block["s"].tolist() == [7, PADDING, 8, PADDING]
    assert block["weight"].tolist() == [1, 0, 1, 0]
    assert block["clip_id"][[1, 3]].tolist() == ["", ""]
    assert block["problem"].tolist() == [""] * 4
    assert not block["clip"][[1, 3]].any()
    without = decoder(np.array([7, 8]))
    assert np.array_equal(block["clip"][[0, 2]], without["clip"])
    empty = decoder(np.array([PADDING, PADDING]))
    assert empty["weight"].tolist() == [0, 0]
    assert empty["clip"].shape == (2, 4, 48, 48, 3)


def test_what_cannot_be_read_keeps_its_row_with_weight_0(
    phantom_manifest: Path, tmp_path: Path
) -> None:
    rows = with_absolute_uris(read_manifest(phantom_manifest), phantom_manifest.parent).to_pylist()
    avi = next(i for i, row in enumerate(rows) if row["uri"].endswith(".avi"))
    gone, empty, short, size, longer = [i for i in range(6) if i != avi][:5]
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "empty.mp4").write_bytes(b"")
    (secret / "text.mp4").write_text("nothing to see")
    cut = cut_off(Path(rows[avi]["uri"]), secret / "cut.avi", 0.6)
    change: dict[int, dict[str, Any]] = {
        gone: {"uri": str(secret / "gone.mp4")},
        empty: {"uri": str(secret / "empty.mp4")},
        short: {"uri": str(secret / "text.mp4")},
        size: {"height": 80},
        longer: {"num_frames": 25},
        avi: {"uri": str(cut)},
    }
    manifest = altered(phantom_manifest, tmp_path, change)
    good = BlockDecoder(config(phantom_manifest), Seeds(SEED))
    decoder = BlockDecoder(config(manifest), Seeds(SEED))
    s = np.arange(len(rows))
    block, expected = decoder(s), good(s)
    order = rows_of(s, len(rows), Seeds(SEED))
    bad = np.isin(order, list(change))
    assert bad.sum() == 6
    assert block["weight"].tolist() == (~bad).astype(float).tolist()
    assert block["s"].tolist() == s.tolist()
    assert block["clip_id"].tolist() == expected["clip_id"].tolist()
    assert not block["clip"][bad].any()
    assert np.array_equal(block["clip"][~bad], expected["clip"][~bad])
    assert set(block["problem"][~bad]) == {""}
    problems = dict(zip(order[bad].tolist(), block["problem"][bad], strict=True))
    assert problems[gone] == "open|missing|no such file"
    assert problems[empty] == "open|empty|the file has zero bytes"
    assert problems[short].startswith("open|not_a_video|no readable DICOM, MP4")
    assert problems[size] == "decode|size_mismatch|64x64, not 80x64"
    assert problems[longer] == "decode|truncated|24 of 25 frames are there"
    assert problems[avi].startswith("decode|truncated|")
    for problem in problems.values():
        assert len(problem.split("|")) == 3
        for name in ("secret", "gone", "/", *(row["patient_id"] for row in rows)):
            assert name not in problem


def test_no_file_takes_its_block_down(
    phantom_manifest: Path, dicom: str, videos: Path, tmp_path: Path
) -> None:
    """Ray drops, and then repeats, the whole block when anything but a `ClipError` is raised."""
    codec = (videos / LONG_GOP.name).read_bytes().replace(b"avc1", b"zzzz")
    (tmp_path / "codec.mp4").write_bytes(codec)
    cut_off(videos / FRAGMENTED.name, tmp_path / "head.mp4", 0.03)
    number = Path(dicom).read_bytes().replace(b"IS\x02\x0030", b"IS\x02\x00xy")
    (tmp_path / "number.dcm").write_bytes(number)
    header = pydicom.dcmread(dicom)
    header.BitsAllocated = None
    header.save_as(tmp_path / "bits.dcm")
    names = ["codec.mp4", "head.mp4", "number.dcm", "bits.dcm", "n\0ul.mp4"]
    change = {i: {"uri": str(tmp_path / name)} for i, name in enumerate(names)}
    manifest = altered(phantom_manifest, tmp_path, change)
    decoder = BlockDecoder(config(manifest), Seeds(SEED))
    good = samples_of([7, 8], 24)
    for row, name in enumerate(names):
        block = decoder(np.array([good[0], *samples_of([row], 24), good[1]]))
        assert block["weight"].tolist() == [1, 0, 1], name
        assert block["problem"][1].split("|")[0] in {"open", "decode"}, name


def test_a_dicom_clip_is_one_more_clip(phantom_manifest: Path, dicom: str, tmp_path: Path) -> None:
    table = with_absolute_uris(read_manifest(phantom_manifest), phantom_manifest.parent)
    row = {"clip_id": "dicom", "patient_id": "pd", "study_id": "sd", "uri": dicom}
    row |= probe(dicom)._asdict()
    rows = [*table.to_pylist(), row]
    path = write_manifest(pa.Table.from_pylist(rows, table.schema), tmp_path / "manifest.parquet")
    (s,) = samples_of([24], 25)
    block = BlockDecoder(config(path), Seeds(SEED))(np.array([s, (s + 1) % 25]))
    assert block["weight"].tolist() == [1, 1]
    assert block["clip_id"][0] == "dicom"
    window, box = random_view(Seeds(SEED), s, row, SMALL)
    pixels = pydicom.dcmread(dicom).pixel_array
    indices = shown(window, 30, row["native_fps"])
    assert np.array_equal(block["clip"][0], crop_resize(pixels[indices], box, 48))


def test_a_bad_manifest_stops_the_decoder(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such manifest"):
        BlockDecoder(config(tmp_path / "none.parquet"), Seeds(SEED))


@pytest.fixture(scope="module")
def received(phantom_manifest: Path) -> tuple[Columns, ClipTable]:
    """A good block with padding, and the clips it is of."""
    data = config(phantom_manifest)
    block = BlockDecoder(data, Seeds(SEED))(np.array([20, 21, 22, 23, 24, PADDING]))
    return block, data.clips()


def test_the_planned_block_passes(received: tuple[Columns, ClipTable]) -> None:
    block, clips = received
    check_block(block, np.array([20, 21, 22, 23, 24, PADDING]), clips, Seeds(SEED))
    padding = {name: column[5:] for name, column in block.items()}
    check_block(padding, np.array([PADDING]), clips, Seeds(SEED))


@pytest.mark.parametrize(
    "expected",
    [
        [20, 21, 22, 23, 24],  # one row too many arrived
        [20, 21, 22, 23, 24, 25],  # one was dropped
        [19, 20, 21, 22, 23, PADDING],  # shifted
        [26, 27, 28, 29, 30, 31],  # the next block: this one came twice
        [21, 20, 22, 23, 24, PADDING],  # swapped within
        [PADDING, 20, 21, 22, 23, 24],
    ],
    ids=str,
)
def test_another_block_than_planned(
    received: tuple[Columns, ClipTable], expected: list[int]
) -> None:
    block, clips = received
    with pytest.raises(BrokenInvariantError, match="expected samples"):
        check_block(block, np.array(expected), clips, Seeds(SEED))


def test_a_doubled_row(received: tuple[Columns, ClipTable]) -> None:
    block, clips = received
    doubled = {name: column[[0, 1, 1, 3, 4, 5]] for name, column in block.items()}
    with pytest.raises(BrokenInvariantError, match="expected samples"):
        check_block(doubled, block["s"], clips, Seeds(SEED))


def test_pixels_of_another_clip(received: tuple[Columns, ClipTable]) -> None:
    block, clips = received
    ids = block["clip_id"]
    for wrong in (ids[[1, 0, 2, 3, 4, 5]], ids[[0, 0, 2, 3, 4, 5]]):
        with pytest.raises(BrokenInvariantError, match="other clips than planned"):
            check_block({**block, "clip_id": wrong}, block["s"], clips, Seeds(SEED))
    with pytest.raises(BrokenInvariantError, match="other clips than planned"):
        check_block(block, block["s"], clips, Seeds(SEED + 1))  # decoded with another seed


def test_a_block_of_another_manifest(
    received: tuple[Columns, ClipTable], phantom_manifest: Path, tmp_path: Path
) -> None:
    block, _ = received
    renamed = altered(phantom_manifest, tmp_path, {i: {"clip_id": f"x{i}"} for i in range(24)})
    clips = open_clips(renamed, ClipFilter(split=None))
    with pytest.raises(BrokenInvariantError, match="other clips than planned"):
        check_block(block, block["s"], clips, Seeds(SEED))
