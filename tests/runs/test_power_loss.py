"""The power is cut at any moment: what is left audits clean, and the run goes on from it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.power import Disk
from support.ranks import losses, pretrain_plain, variant

from echojepa.durable import append_line, flush
from echojepa.runs.audit import audit_run
from echojepa.runs.checkpoint import newest_valid, step_of
from echojepa.runs.folder import RunFolder

Tree = dict[str, Any]


@pytest.fixture
def cuts(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[tuple[int, Path]]]:
    """Cuts the power after every flush; collects (step of the newest checkpoint, what is left)."""
    root = tmp_path / "run"
    left: list[tuple[int, Path]] = []

    def cut(_: Path) -> None:
        target = tmp_path / "left" / str(len(left))
        disk.survives(root, target)
        newest, _ = newest_valid(target / "checkpoints")
        left.append((0 if newest is None else step_of(newest), target))

    root.mkdir()
    disk = Disk(cut)
    with monkeypatch.context() as patch:
        disk.watch(patch)
        yield left
    disk.close()


def test_a_visible_checkpoint_has_its_record(tree: Tree, cuts: list[tuple[int, Path]]) -> None:
    tree["loop"]["checkpoint_every_steps"] = 2
    pretrain_plain(tree)
    assert sorted({step for step, _ in cuts}) == [0, 2, 4, 6, 8]
    for step, folder in cuts:
        if step:
            report = audit_run(RunFolder(folder))
            assert not report.findings, (step, report.findings)


def test_a_run_goes_on_after_a_cut(
    tree: Tree, cuts: list[tuple[int, Path]], tmp_path: Path
) -> None:
    tree["loop"]["checkpoint_every_steps"] = 4
    pretrain_plain(tree)
    whole = losses(tree)
    first = next(folder for step, folder in cuts if step == 4)
    again = variant(tree, "again")
    shutil.copytree(first, again["run_dir"])
    pretrain_plain(again)
    assert losses(again)[-4:] == whole[-4:]
    assert not audit_run(RunFolder(again["run_dir"])).findings


def test_the_model_loses_what_was_not_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the tests above could not fail."""
    root = tmp_path / "root"
    root.mkdir()
    disk = Disk(lambda _: None)
    disk.watch(monkeypatch)
    append_line(root / "lines", "one")
    with (root / "lines").open("a") as file:
        file.write("two\n")
    (root / "other").write_text("text")
    disk.survives(root, tmp_path / "left")
    assert (tmp_path / "left" / "lines").read_text() == "one\n"
    assert [file.name for file in (tmp_path / "left").iterdir()] == ["lines"]
    flush(root)
    disk.survives(root, tmp_path / "later")
    assert (tmp_path / "later" / "other").read_text() == ""
    disk.close()
