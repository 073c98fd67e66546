"""A clip that kills its decode process twice becomes an error, not a third death."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.clips import clip_rows

from echojepa.data.block import BlockDecoder, DataConfig
from echojepa.data.decode.journal import CrashJournal
from echojepa.data.manifest.file import write_manifest
from echojepa.data.manifest.schema import ClipFilter
from echojepa.data.sampling import ClipConfig
from echojepa.errors import ClipError
from echojepa.randomness import Seeds

_CHILD = """
import os, signal, sys, time
from pathlib import Path
from echojepa.data.decode.journal import CrashJournal

journal = CrashJournal(Path(sys.argv[1]))
for word in sys.argv[2:]:
    if word == "end":
        journal.end()
    elif word == "wait":
        print("ready", flush=True)
        time.sleep(60)
    elif word.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, word))
    else:
        journal.begin(int(word))
"""


def run(folder: Path, *words: str) -> int:
    """A decode process that begins samples (numbers), ends them, or dies; returns its status."""
    command = [sys.executable, "-c", _CHILD, str(folder), *words]
    return subprocess.run(command, cwd=folder.parent, check=False).returncode


def begins(folder: Path, s: int) -> bool:
    """Whether a process that starts now would decode sample `s`."""
    return run(folder, str(s), "end") == 0


def test_one_death_proves_nothing_two_do(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    assert run(folder, "3", "end", "7", "SIGSEGV") == -signal.SIGSEGV
    journal = CrashJournal(folder)
    journal.begin(7)  # tried again
    journal.end()
    assert run(folder, "7", "SIGKILL") == -signal.SIGKILL
    successor = CrashJournal(folder)
    with pytest.raises(ClipError) as caught:
        successor.begin(7)
    assert (caught.value.stage, caught.value.kind) == ("decode", "crash")
    assert caught.value.message == "2 decode processes died on this clip"
    for s in (3, 6, 8, 0):
        successor.begin(s)
        successor.end()
    with pytest.raises(ClipError):  # and it stays refused
        successor.begin(7)


def test_deaths_on_different_samples_do_not_add_up(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    for s in ("1", "2", "3"):
        assert run(folder, s, "SIGKILL") == -signal.SIGKILL
    journal = CrashJournal(folder)
    for s in (1, 2, 3):
        journal.begin(s)


def test_sample_zero_counts(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    for _ in range(2):
        assert run(folder, "0", "SIGKILL") == -signal.SIGKILL
    with pytest.raises(ClipError, match="crash"):
        CrashJournal(folder).begin(0)


def test_a_process_that_ended_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    for _ in range(3):
        assert run(folder, "7", "end") == 0
        assert run(folder, "7", "end", "SIGKILL") == -signal.SIGKILL  # killed while idle
    CrashJournal(folder).begin(7)


def test_living_processes_are_busy_not_dead(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    command = [sys.executable, "-c", _CHILD, str(folder), "7", "wait"]
    living = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) for _ in range(2)
    ]
    try:
        for process in living:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        assert begins(folder, 7)
    finally:
        for process in living:
            process.kill()
            process.communicate()
    assert not begins(folder, 7)


def test_a_torn_file_is_ignored(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    for _ in range(2):
        run(folder, "7", "SIGKILL")
    torn, _ = sorted(folder.glob("*.sample"))
    torn.write_bytes(torn.read_bytes()[:3])
    CrashJournal(folder).begin(7)


def test_the_journal_of_this_process(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet" / "there"
    journal = CrashJournal(folder)
    journal.begin(2**62)
    (file,) = folder.iterdir()
    assert file.name == f"{os.getpid()}.sample"
    assert file.stat().st_mode & 0o077 == 0
    CrashJournal(folder).begin(2**62)  # a second one of the same process is no death either


def missing_clip(tmp_path: Path) -> DataConfig:
    """A data set whose only clip is not there."""
    manifest = write_manifest(clip_rows(1), tmp_path / "manifest.parquet")
    return DataConfig(
        manifest=str(manifest),
        where=ClipFilter(split=None),
        clip=ClipConfig(num_frames=2, size=16),
    )


def test_the_decoder_reports_a_clip_that_kills(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    data = missing_clip(tmp_path)
    run(folder, "5", "SIGSEGV")
    once = BlockDecoder(data, Seeds(0), folder)(np.array([5]))
    assert once["problem"][0].startswith("open|missing|")
    run(folder, "5", "SIGSEGV")
    twice = BlockDecoder(data, Seeds(0), folder)(np.array([4, 5, 6]))
    assert twice["problem"][1] == "decode|crash|2 decode processes died on this clip"
    assert twice["problem"][0].startswith("open|missing|")
    assert twice["problem"][2].startswith("open|missing|")
    assert twice["weight"].tolist() == [0, 0, 0]


def test_an_unreadable_clip_is_no_crash(tmp_path: Path) -> None:
    """Decoders are killed when they idle, too: an error must not stand in the journal as busy."""
    folder = tmp_path / "journal"
    data = missing_clip(tmp_path)
    BlockDecoder(data, Seeds(0), folder)(np.array([5]))
    (left,) = folder.iterdir()
    for _ in range(2):  # what this process leaves is what two that were killed now would have left
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        shutil.copy(left, folder / f"{dead.pid}.sample")
    block = BlockDecoder(data, Seeds(0), folder)(np.array([5]))
    assert block["problem"][0].startswith("open|missing|")
