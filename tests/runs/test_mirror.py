"""The copy of a run on other storage: complete, in order, and good enough to go on from."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from support.ranks import pretrain_plain
from support.s3 import Behaviour, url

from echojepa.config import validate
from echojepa.errors import ConfigError, StorageError
from echojepa.pretrain import PretrainConfig
from echojepa.runs.audit import audit_run
from echojepa.runs.folder import RunFolder
from echojepa.runs.mirror import fetch_lost_run
from echojepa.runs.storage import StorageFolder

Tree = dict[str, Any]


@pytest.fixture
def tree(tiny_tree: Tree, tmp_path: Path) -> Tree:
    """Eight steps, a checkpoint every two, copied into a folder."""
    tiny_tree["loop"] |= {"checkpoint_every_steps": 2, "log_every_steps": 1}
    tiny_tree["mirror"] = str(tmp_path / "mirror")
    return tiny_tree


def names(place: Path) -> set[str]:
    return {f.name for f in (place / "checkpoints").iterdir() if (f / "checksums.json").is_file()}


def stopped_at(tree: Tree, step: int) -> Tree:
    return {**tree, "loop": {**tree["loop"], "stop_after_step": step}}


def fetched(tree: Tree) -> Path | None:
    """What the launcher does before it opens the run folder."""
    config = validate(tree, PretrainConfig, "test")
    clips = config.data.clips()
    return fetch_lost_run(tree["mirror"], RunFolder(tree["run_dir"]), config, clips.fingerprint)


@pytest.mark.integration
def test_a_lost_run_goes_on_from_its_copy(tree: Tree, tmp_path: Path) -> None:
    """Losses and audit are those of a run that lost nothing."""
    plain = {k: v for k, v in tree.items() if k != "mirror"}
    undisturbed = pretrain_plain({**plain, "run_dir": str(tmp_path / "plain")})
    pretrain_plain(stopped_at(tree, 4))
    folder = RunFolder(tree["run_dir"])
    shutil.rmtree(folder.path)
    assert fetched(tree) == folder.checkpoints / "step_00000004"
    assert pretrain_plain(tree) == undisturbed
    assert [a["start_step"] for a in folder.attempts()] == [0, 4]
    assert not audit_run(folder).findings
    assert (tmp_path / "mirror" / "encoder" / "model.safetensors").is_file()


@pytest.mark.integration
def test_the_copy_keeps_what_the_run_keeps(tree: Tree, tmp_path: Path) -> None:
    """The newest two, and one that is known to be healthy."""
    tree["loop"] |= {"num_steps": 12, "checkpoint_every_steps": 1}
    pretrain_plain(tree)
    folder = RunFolder(tree["run_dir"])
    steps = sorted({event["step"] for event in folder.events("mirrored")})
    assert len(steps) > 3 and steps[-1] == 12
    kept = names(tmp_path / "mirror")
    assert {f"step_{step:08d}" for step in steps[-2:]} <= kept and len(kept) <= 3
    assert not list(folder.checkpoints.glob(".mirror_*"))


@pytest.mark.integration
def test_a_folder_with_a_valid_checkpoint_fetches_nothing(tree: Tree) -> None:
    pretrain_plain(stopped_at(tree, 4))
    folder = RunFolder(tree["run_dir"])
    assert fetched(tree) is None
    shutil.rmtree(folder.checkpoints)
    assert fetched(tree) is not None


@pytest.mark.integration
def test_a_damaged_copy_is_passed_over(tree: Tree, tmp_path: Path) -> None:
    tree["loop"]["keep_last"] = 4
    pretrain_plain(tree)
    mirror = tmp_path / "mirror" / "checkpoints"
    older, newest = sorted(names(tmp_path / "mirror"))[-2:]
    shard = next((mirror / newest).glob("shard_*"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    folder = RunFolder(tree["run_dir"])
    shutil.rmtree(folder.path)
    found = fetched(tree)
    assert found is not None and found.name == older


@pytest.mark.integration
def test_the_copy_of_another_run_is_left_alone(tree: Tree, tmp_path: Path) -> None:
    """Neither fetched into an empty folder nor overwritten by a run that has begun."""
    pretrain_plain(stopped_at(tree, 4))
    other = {**tree, "seed": 7, "run_dir": str(tmp_path / "other")}
    with pytest.raises(StorageError, match="mirror holds the copy of another run"):
        fetched(other)
    before = names(tmp_path / "mirror")
    pretrain_plain(other)
    reasons = {e["reason"] for e in RunFolder(other["run_dir"]).events("not_mirrored")}
    assert any("the storage holds the copy of another run" in reason for reason in reasons)
    assert names(tmp_path / "mirror") == before
    assert fetched(tree) is None


@pytest.mark.integration
def test_an_abandoned_history_leaves_the_copy(tree: Tree, tmp_path: Path) -> None:
    """After a rollback, a checkpoint of the collapse must not be what a lost run goes on from."""
    pretrain_plain(stopped_at(tree, 6))
    folder = RunFolder(tree["run_dir"])
    for checkpoint in folder.checkpoints.glob("step_*"):
        if checkpoint.name > "step_00000004":
            shutil.rmtree(checkpoint)
    pretrain_plain(stopped_at(tree, 4))
    assert names(tmp_path / "mirror") <= {"step_00000002", "step_00000004"}


def test_a_place_that_cannot_be_written_is_said_at_once(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot be written.*bucket and the credentials"):
        StorageFolder.of(str(tmp_path / "file")).check()
    with pytest.raises(StorageError, match="not a folder that can be copied to"):
        StorageFolder.of("nonsense://x")
    with pytest.raises(ConfigError, match="must not hold credentials"):
        validate({**tree, "mirror": "s3://key:secret@bucket/run"}, PretrainConfig, "test")


@pytest.fixture
def storage(s3_server: tuple[int, Behaviour], tmp_path: Path) -> tuple[str, Behaviour]:
    """A URL of its own, and the behaviour of what lies in between."""
    port, behaviour = s3_server
    behaviour.reset()
    place = url(port, f"bucket/{tmp_path.name}/run")
    StorageFolder.of(place).filesystem.create_dir("bucket")
    StorageFolder.of(place).check()
    return place, behaviour


@pytest.mark.integration
@pytest.mark.parametrize("fault", ["500", "503", "reset"])
def test_s3_that_stutters_loses_nothing(
    tree: Tree, storage: tuple[str, Behaviour], fault: str
) -> None:
    place, behaviour = storage
    tree["mirror"] = place
    behaviour.next_answers = [fault, "pass", fault, fault, "pass"] * 3
    pretrain_plain(tree)
    folder = RunFolder(tree["run_dir"])
    assert folder.events("mirrored")[-1]["step"] == 8
    shutil.rmtree(folder.path)
    behaviour.next_answers = [fault, "pass", fault]
    assert fetched(tree) == folder.checkpoints / "step_00000008"


@pytest.mark.integration
def test_expired_credentials_are_an_event_and_the_run_goes_on(
    tree: Tree, storage: tuple[str, Behaviour]
) -> None:
    place, behaviour = storage
    tree["mirror"] = place
    behaviour.always = "expired"
    with pytest.raises(StorageError, match="cannot be written"):
        StorageFolder.of(place).check()
    with pytest.raises(StorageError, match="cannot be fetched"):
        fetched(tree)
    pretrain_plain(stopped_at(tree, 4))
    folder = RunFolder(tree["run_dir"])
    assert folder.events("not_mirrored") and not folder.events("mirrored")
    behaviour.always = "pass"
    pretrain_plain(tree)
    assert folder.events("mirrored")[-1]["step"] == 8


@pytest.mark.integration
def test_the_loop_does_not_wait_for_slow_storage(
    tree: Tree, storage: tuple[str, Behaviour], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a rate at which one copy outlasts all steps, saves take what they take without copies."""
    from echojepa.runs.saver import RunSaver as Saver

    place, behaviour = storage
    seconds: list[float] = []
    save = Saver.save

    def timed(self: Saver, state: Any) -> None:
        began = time.perf_counter()
        save(self, state)
        seconds.append(time.perf_counter() - began)

    monkeypatch.setattr(Saver, "save", timed)
    began = time.perf_counter()
    pretrain_plain({**tree, "mirror": None, "run_dir": f"{tree['run_dir']}_plain"})
    step = (time.perf_counter() - began - sum(seconds)) / 8
    without = list(seconds)
    seconds.clear()
    behaviour.bytes_per_second = 0.3e6
    pretrain_plain({**tree, "mirror": place})
    extra = sorted(seconds)[2] - sorted(without)[2]
    folder = RunFolder(tree["run_dir"])
    assert folder.events("not_mirrored")[0]["reason"] == "overtaken", "the copies were slower"
    assert folder.events("mirrored")[-1]["step"] == 8
    print(f"a save takes {extra * 1e3:.0f} ms more with copies: {extra / step:.2f} steps")
    assert extra < step
