"""A copy of the run on other storage: S3, GCS, or any folder.

Every checkpoint goes there in the background, with the small files that tell the run's history, and
becomes visible there when its last file, the checksums, has arrived. The loop never waits for it: a
checkpoint that a newer one overtakes is left out, and storage that fails for a while is an event.
If the run folder is lost, the next start fetches what is there.

    MIRROR/checkpoints/step_00000200/...      MIRROR/attempts.jsonl, samples/, ...
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from echojepa.config import Strict, binding_differences
from echojepa.errors import StorageError, first_line
from echojepa.runs.checkpoint import CHECKSUMS, Retention, find_damage, newest_valid, step_of
from echojepa.runs.folder import RunFolder
from echojepa.runs.storage import StorageFolder

_SMALL = ("*.jsonl", "*.json", "*.yaml", "*.parquet", "samples/*", "encoder/*")
_HELD = ".mirror_"
_COMPLETE = re.compile(rf"checkpoints/(step_\d+)/{re.escape(CHECKSUMS)}")


class Mirror:
    """Copies a run's checkpoints from a thread of its own; used by rank 0.

    Credentials are looked up again for every checkpoint, so that new ones are found.
    """

    def __init__(self, url: str, folder: RunFolder, start_step: int) -> None:
        """Goes on from `start_step`: later checkpoints there belong to an abandoned history."""
        self._url = url
        self._folder = folder
        self._start_step = start_step
        for left in folder.checkpoints.glob(f"{_HELD}*"):
            shutil.rmtree(left)
        self._waiting: tuple[Path, Retention] | None = None
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)
        self._thread.start()

    def submit(self, checkpoint: Path, retention: Retention) -> None:
        """Copy a checkpoint when the one before it is through; returns at once.

        Hard links keep its files until then, whatever retention does to the checkpoint itself.
        """
        held = checkpoint.with_name(f"{_HELD}{checkpoint.name}")
        shutil.rmtree(held, ignore_errors=True)
        try:
            shutil.copytree(checkpoint, held, copy_function=os.link)
        except OSError as error:
            self._not_mirrored(step_of(checkpoint), first_line(error))
            return
        with self._changed:
            if self._waiting is not None:
                overtaken, _ = self._waiting
                self._not_mirrored(_step_of_held(overtaken), "overtaken")
                shutil.rmtree(overtaken, ignore_errors=True)
            self._waiting = held, retention
            self._changed.notify()

    def close(self) -> None:
        """Wait until everything is there, the exported encoder too, or has failed."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        ours = self._try(self._start_step, self._begin)
        while True:
            with self._changed:
                while self._waiting is None and not self._closing:
                    self._changed.wait()
                waiting, self._waiting = self._waiting, None
            if waiting is None:
                break
            held, retention = waiting
            step = _step_of_held(held)
            ours = ours or self._try(step, self._begin)
            if ours and self._try(step, partial(self._copy, held, retention)):
                with suppress(OSError):
                    self._folder.event("mirrored", step)
            shutil.rmtree(held, ignore_errors=True)
        if ours:
            self._try(self._start_step, self._copy_history)

    def _try(self, step: int, action: Callable[[], None]) -> bool:
        """Do something to the storage; returns whether it worked, and records it if not."""
        try:
            action()
        except (OSError, StorageError) as error:
            self._not_mirrored(step, first_line(error))
            return False
        return True

    def _not_mirrored(self, step: int, reason: str) -> None:
        with suppress(OSError):  # a full disk stops the loop, not this thread
            self._folder.event("not_mirrored", step, reason=reason)

    def _begin(self) -> None:
        """Check that the copy there is this run's own, and drop what its history has abandoned."""
        storage = StorageFolder.of(self._url)
        check_owner(storage, self._folder)
        _drop(storage, self._start_step, None)

    def _copy(self, held: Path, retention: Retention) -> None:
        """The history first, then the checkpoint, its checksums last; then what is too old goes."""
        self._copy_history()
        storage = StorageFolder.of(self._url)
        name = held.name.removeprefix(_HELD)
        for file in sorted(held.iterdir(), key=lambda f: f.name == CHECKSUMS):
            storage.put(file, f"checkpoints/{name}/{file.name}")
        _drop(storage, _step_of_held(held), retention)

    def _copy_history(self) -> None:
        storage = StorageFolder.of(self._url)
        for pattern in _SMALL:
            for file in sorted(self._folder.path.glob(pattern)):
                storage.put(file, str(file.relative_to(self._folder.path)))


def _complete(files: Iterable[str]) -> list[str]:
    """Names of the checkpoints that are there as a whole, oldest first."""
    return sorted(found[1] for name in files if (found := _COMPLETE.fullmatch(name)))


def _inside(files: Iterable[str], checkpoint: str) -> list[str]:
    """Files of a checkpoint, the one that makes it visible first."""
    found = [name for name in files if name.startswith(f"checkpoints/{checkpoint}/")]
    return sorted(found, key=lambda name: not name.endswith(CHECKSUMS))


def check_owner(storage: StorageFolder, folder: RunFolder) -> None:
    """Raise `StorageError` if the storage holds the copy of another run."""
    owner = storage.read("run.json")
    if owner is not None and json.loads(owner).get("run_id") != folder.identity()["run_id"]:
        raise StorageError(
            "the storage holds the copy of another run",
            "Give every run a mirror folder of its own.",
            storage.url,
        )


def fetch_lost_run(url: str, folder: RunFolder, config: Strict, fingerprint: str) -> Path | None:
    """Fetch the newest whole checkpoint and the history of a run whose folder has no valid one.

    Args:
        config: of the run that is to go on, which must be the one that was copied.
        fingerprint: of its manifest.

    Returns:
        The checkpoint fetched, or None if the folder needs none or there is none.

    Raises:
        StorageError: it cannot be fetched, or is the copy of another run.
    """
    if newest_valid(folder.checkpoints)[0] is not None:
        return None
    storage = StorageFolder.of(url)
    try:
        files = storage.files()
        complete = _complete(files)
        if complete:
            _check_same(storage, folder, config, fingerprint)
        for name in reversed(complete):
            found = _fetch(storage, files, folder, name)
            if found is not None:
                return found
    except (OSError, ValueError) as error:
        raise StorageError(
            f"the copy of the run cannot be fetched: {first_line(error)}",
            "Check mirror, the credentials of this machine and the room in run_dir; then run the "
            "same command again.",
            url,
        ) from None
    return None


def _check_same(
    storage: StorageFolder, folder: RunFolder, config: Strict, fingerprint: str
) -> None:
    if (folder.path / "run.json").is_file():
        check_owner(storage, folder)
        return
    owner = json.loads(storage.read("run.json") or b"{}")
    same = owner.get("manifest_fingerprint") == fingerprint
    if not same or binding_differences(owner["config"], config):
        raise StorageError(
            "the run folder is empty, and mirror holds the copy of another run",
            "Give every run its own mirror folder, or use the config and manifest of that run.",
            storage.url,
        )


def _fetch(
    storage: StorageFolder, files: dict[str, int], folder: RunFolder, name: str
) -> Path | None:
    """One checkpoint, or None if it does not prove itself; the history first, it makes it whole."""
    incoming = folder.checkpoints / f".{name}.fetched"
    shutil.rmtree(incoming, ignore_errors=True)
    for file in _inside(files, name):
        storage.get(file, incoming / file.rpartition("/")[2])
    if find_damage(incoming) is not None:
        shutil.rmtree(incoming)
        return None
    for file in files:
        if not file.startswith("checkpoints/") and not (folder.path / file).exists():
            storage.get(file, folder.path / file)
    final = folder.checkpoints / name
    shutil.rmtree(final, ignore_errors=True)  # a damaged one
    incoming.rename(final)
    return final


def _drop(storage: StorageFolder, step: int, retention: Retention | None) -> None:
    """Delete checkpoints beyond a step, an abandoned history, and those that are too old."""
    files = storage.files()
    complete = _complete(files)
    history = [name for name in complete if step_of(Path(name)) <= step]
    unwanted = set(complete) - set(history)
    if retention is not None:
        unwanted |= set(retention.too_old(history))
    for name in sorted(unwanted):
        storage.delete(_inside(files, name))


def _step_of_held(held: Path) -> int:
    return step_of(held.with_name(held.name.removeprefix(_HELD)))
