"""Checkpoints prove themselves; the newest valid one is used; anything else is said."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from echojepa.errors import CheckpointError, StorageError
from echojepa.runs.checkpoint import (
    Retention,
    find_damage,
    folder_of,
    newest_valid,
    read_state,
    resolve,
    save,
)
from echojepa.runs.shards import ShardReader, reshard, write_shards
from echojepa.train.engine import Shard, Shards

KEEP_ALL = Retention(keep_last=99, keep_every_steps=None, healthy_until=(0,))


def shards_of(value: float) -> Shards:
    data = torch.full((6,), value)
    return {"weight/a": Shard(data, 0, (2, 3)), "exp_avg/a": Shard(data * 2, 0, (2, 3))}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three checkpoints, at steps 10, 20 and 30."""
    root = tmp_path / "checkpoints"
    for step in (10, 20, 30):
        save(root, step, shards_of(step), {"loop": {"step": step}}, KEEP_ALL)
    return root


def test_round_trip(root: Path) -> None:
    folder, rejected = newest_valid(root)
    assert folder == folder_of(root, 30)
    assert not rejected
    assert read_state(folder)["loop"]["step"] == 30
    with ShardReader(folder) as reader:
        assert torch.equal(reader.whole("weight/a"), torch.full((2, 3), 30.0))
        assert torch.equal(reader.read("exp_avg/a", 2, 4), torch.full((2,), 60.0))


FILES = ("shard_00000_of_00001.safetensors", "state.json", "checksums.json")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncated", "flipped", "deleted", "emptied"])
def test_any_damage_is_found_and_the_one_before_is_used(root: Path, name: str, damage: str) -> None:
    file = folder_of(root, 30) / name
    content = bytearray(file.read_bytes())
    if damage == "truncated":
        file.write_bytes(content[:-1])
    elif damage == "emptied":
        file.write_bytes(b"")
    elif damage == "deleted":
        file.unlink()
    else:
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    folder, rejected = newest_valid(root)
    assert folder == folder_of(root, 20)
    assert len(rejected) == 1
    assert rejected[0].startswith("step_00000030: ")


def test_every_bit_of_the_checksums_counts(root: Path) -> None:
    file = folder_of(root, 30) / "checksums.json"
    good = file.read_bytes()
    for position in range(0, len(good), 7):
        bad = bytearray(good)
        bad[position] ^= 4
        file.write_bytes(bad)
        # White space between JSON tokens may change without changing what is said.
        if bytes([good[position]]).strip():
            assert find_damage(folder_of(root, 30)), f"byte {position}"
    file.write_bytes(good)
    assert find_damage(folder_of(root, 30)) is None


def test_a_half_written_checkpoint_is_invisible(root: Path) -> None:
    shutil.copytree(folder_of(root, 30), root / ".step_00000040.partial")
    assert newest_valid(root)[0] == folder_of(root, 30)


def test_saving_again_replaces_a_damaged_one(root: Path) -> None:
    (folder_of(root, 30) / "state.json").write_text("{}")
    save(root, 30, shards_of(31), {"loop": {"step": 30}}, KEEP_ALL)
    with ShardReader(folder_of(root, 30)) as reader:
        assert reader.whole("weight/a")[0, 0] == 31


def test_retention(root: Path) -> None:
    save(root, 40, shards_of(40), {}, Retention(2, keep_every_steps=20, healthy_until=(0,)))
    assert sorted(f.name for f in root.iterdir()) == [
        "step_00000020",
        "step_00000030",
        "step_00000040",
    ]


def test_the_newest_healthy_checkpoint_stays() -> None:
    names = [f"step_{step:08d}" for step in (10, 20, 30, 40, 50)]
    gone = Retention(2, keep_every_steps=None, healthy_until=(25,)).too_old(names)
    assert gone == [names[0], names[2]]
    assert Retention(2, keep_every_steps=30, healthy_until=(5,)).too_old(names) == names[:2]


def test_retention_does_not_count_what_is_damaged_ahead(root: Path) -> None:
    (folder_of(root, 30) / "state.json").write_text("{}")
    save(root, 25, shards_of(25), {}, Retention(1, keep_every_steps=None, healthy_until=(0,)))
    assert newest_valid(root)[0] == folder_of(root, 25)
    assert sorted(f.name for f in root.iterdir()) == ["step_00000025", "step_00000030"]


@pytest.fixture
def little_room() -> Iterator[None]:
    """This process can write no file beyond 64 KiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_shards_that_do_not_fit_are_said(root: Path, little_room: None) -> None:
    large = {"weight/a": Shard(torch.zeros(2**16), 0, (2**16,))}
    with pytest.raises(StorageError, match=r"cannot be written: rank 0: .*too large"):
        save(root, 40, large, {}, KEEP_ALL)
    assert newest_valid(root)[0] == folder_of(root, 30)


def test_a_named_checkpoint_must_be_whole(root: Path) -> None:
    assert resolve(folder_of(root, 20)) == folder_of(root, 20)
    assert resolve(root.parent) == folder_of(root, 30)
    (folder_of(root, 20) / "state.json").unlink()
    with pytest.raises(CheckpointError, match="damaged: state.json is missing"):
        resolve(folder_of(root, 20))
    with pytest.raises(CheckpointError, match="no valid checkpoint"):
        resolve(root.parent / "elsewhere")


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="the checkpoint cannot be written: rank 0"):
        save(tmp_path / "checkpoints", 1, shards_of(1), {}, KEEP_ALL)


def test_resharding_cuts_any_number_of_files_anew(tmp_path: Path) -> None:
    whole = torch.arange(10.0)
    for rank, (start, stop) in enumerate([(0, 4), (4, 8), (8, 10)]):
        write_shards(tmp_path, {"weight/a": Shard(whole[start:stop], start, (10,))}, rank, 3)
    like = {"weight/a": Shard(torch.empty(5), 5, (10,))}
    with ShardReader(tmp_path) as reader:
        assert torch.equal(reshard(reader, like)["weight/a"].data, whole[5:])


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"weight/b": Shard(torch.empty(6), 0, (6,))}, r"1 missing \(first: weight/b\)"),
        ({"weight/a": Shard(torch.empty(6), 0, (3, 2))}, r"weight/a: \(2, 3\), not \(3, 2\)"),
        ({}, r"2 unexpected \(first: exp_avg/a\)"),
    ],
)
def test_another_architecture_is_named(root: Path, like: Shards, message: str) -> None:
    with (
        ShardReader(folder_of(root, 30)) as reader,
        pytest.raises(CheckpointError, match=f"another architecture.*{message}"),
    ):
        reshard(reader, like)
