"""A copy of the run on other storage: S3, GCS, or any folder.

Every checkpoint goes there in the background, with the small files that tell the run's history, and
becomes visible there when its last file, the checksums, has arrived. The loop never waits for it: a
checkpoint that a newer one overtakes is left out, and storage that fails for a while is an event.
If the run folder is lost, the next start fetches what is there.

    MIRROR/checkpoints/step_00000200/...      MIRROR/attempts.jsonl, samples/, ...
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from echojepa.errors import StorageError
from echojepa.train.checkpoint import CHECKSUMS, Retention, find_damage, newest_valid, step_of
from echojepa.train.run_folder import RunFolder

_SMALL = ("*.jsonl", "*.json", "*.yaml", "*.parquet", "samples/*", "encoder/*")
_HELD = ".mirror_"
_CHUNK = 8 << 20
_ATTEMPTS = 5
_FIRST_PAUSE_SECONDS = 1.0


@dataclass(frozen=True)
class Place:
    """A folder on some storage."""

    filesystem: pafs.FileSystem
    root: str

    @classmethod
    def of(cls, url: str) -> Place:
        """What a URL that pyarrow knows, or a path, names.

        Raises:
            StorageError: the URL is not understood.
        """
        try:
            filesystem, root = pafs.FileSystem.from_uri(url if "://" in url else f"file://{url}")
        except (ValueError, OSError) as error:
            raise StorageError(
                f"not a place to copy to: {error}", "Name s3://bucket/path or a folder.", url
            ) from None
        return cls(filesystem, root.rstrip("/"))

    def check(self, url: str) -> None:
        """Write, read and delete a small object.

        Raises:
            StorageError: it cannot be done.
        """
        name = f"{self.root}/.writable"
        try:
            with self._writing(name) as stream:
                stream.write(b"echojepa")
            with self.filesystem.open_input_stream(name) as stream:
                stream.read()
            self.filesystem.delete_file(name)
        except OSError as error:
            raise StorageError(
                f"the copy of the run cannot be written: {str(error).splitlines()[0]}",
                "Check mirror, its bucket and the credentials of this machine.",
                url,
            ) from None

    def put(self, file: Path, name: str) -> None:
        """Copy a file there; on failure try again, with growing pauses. Raises `OSError`."""
        for attempt in range(_ATTEMPTS):
            try:
                with file.open("rb") as opened, self._writing(f"{self.root}/{name}") as stream:
                    shutil.copyfileobj(opened, stream, _CHUNK)
                return
            except FileNotFoundError:
                raise
            except OSError:
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(_FIRST_PAUSE_SECONDS * 2**attempt)

    def _writing(self, path: str) -> Any:
        """A stream to a file; object stores need no folder for it, and would keep an object."""
        if self.filesystem.type_name not in ("s3", "gcs", "abfs"):
            self.filesystem.create_dir(path.rpartition("/")[0], recursive=True)
        return self.filesystem.open_output_stream(path)

    def get(self, name: str, file: Path) -> None:
        """Copy a file from there. Raises `OSError`."""
        file.parent.mkdir(parents=True, exist_ok=True)
        incoming = file.with_name(f".{file.name}.partial")
        source = self.filesystem.open_input_stream(f"{self.root}/{name}")
        with source as stream, incoming.open("wb") as opened:
            shutil.copyfileobj(stream, opened, _CHUNK)
        incoming.replace(file)

    def files(self) -> dict[str, int]:
        """Size of every file by its path from the root. Raises `OSError`."""
        selector = pafs.FileSelector(self.root, recursive=True, allow_not_found=True)
        found = self.filesystem.get_file_info(selector)
        prefix = self.root.lstrip("/") + "/"
        return {
            info.path.lstrip("/").removeprefix(prefix): info.size
            for info in found
            if info.type == pafs.FileType.File
        }

    def delete(self, names: Iterable[str]) -> None:
        """Delete files, in this order. Raises `OSError`."""
        for name in names:
            self.filesystem.delete_file(f"{self.root}/{name}")


class Mirror:
    """Copies a run's checkpoints from a thread of its own; used by rank 0.

    Credentials are looked up anew for every checkpoint, so that new ones are found.
    """

    def __init__(self, url: str, folder: RunFolder, start_step: int) -> None:
        """Goes on from `start_step`: later checkpoints there belong to an abandoned history."""
        self._url = url
        self._folder = folder
        self._start_step = start_step
        for left in folder.checkpoints.glob(f"{_HELD}*"):
            shutil.rmtree(left)
        self._retention = Retention(1, None, 0)
        self._waiting: Path | None = None
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
        shutil.copytree(checkpoint, held, copy_function=os.link)
        with self._changed:
            if self._waiting is not None:
                self._folder.event("not_mirrored", _step_of_held(self._waiting), reason="overtaken")
                shutil.rmtree(self._waiting, ignore_errors=True)
            self._waiting, self._retention = held, retention
            self._changed.notify()

    def close(self) -> None:
        """Wait until everything is there, the exported encoder too, or has failed."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        self._attempt(self._start_step, self._drop_abandoned)
        while True:
            with self._changed:
                while self._waiting is None and not self._closing:
                    self._changed.wait()
                held, self._waiting = self._waiting, None
            if held is None:
                break
            if self._attempt(_step_of_held(held), partial(self._copy, held)):
                self._folder.event("mirrored", _step_of_held(held))
            shutil.rmtree(held, ignore_errors=True)
        self._attempt(self._start_step, self._copy_history)

    def _attempt(self, step: int, action: Callable[[], None]) -> bool:
        """Do something to the storage; returns whether it worked, and records it if not."""
        try:
            action()
        except (OSError, StorageError) as error:
            reason = str(error).splitlines()[0][:300]
            self._folder.event("not_mirrored", step, reason=reason)
            return False
        return True

    def _drop_abandoned(self) -> None:
        place = Place.of(self._url)
        files = place.files()
        for name in _complete(files):
            if step_of(Path(name)) > self._start_step:
                place.delete(_inside(files, name))

    def _copy(self, held: Path) -> None:
        """The history first, then the checkpoint, its checksums last; then what is too old goes."""
        self._copy_history()
        place = Place.of(self._url)
        name = held.name.removeprefix(_HELD)
        for file in sorted(held.iterdir(), key=lambda f: f.name == CHECKSUMS):
            place.put(file, f"checkpoints/{name}/{file.name}")
        files = place.files()
        for old in self._retention.too_old(_complete(files)):
            place.delete(_inside(files, old))

    def _copy_history(self) -> None:
        place = Place.of(self._url)
        for pattern in _SMALL:
            for file in sorted(self._folder.path.glob(pattern)):
                place.put(file, str(file.relative_to(self._folder.path)))


def _complete(files: Iterable[str]) -> list[str]:
    """Names of the checkpoints that are there as a whole, oldest first."""
    return sorted(name.split("/")[1] for name in files if name.endswith(f"/{CHECKSUMS}"))


def _inside(files: Iterable[str], checkpoint: str) -> list[str]:
    """Files of a checkpoint, the one that makes it visible first."""
    found = [name for name in files if name.startswith(f"checkpoints/{checkpoint}/")]
    return sorted(found, key=lambda name: not name.endswith(CHECKSUMS))


def restore(url: str, folder: RunFolder) -> Path | None:
    """Fetch the newest whole checkpoint and the history of a run whose folder has no valid one.

    Returns:
        The checkpoint fetched, or None if the folder needs none or there is none.

    Raises:
        StorageError: the storage cannot be read.
    """
    if newest_valid(folder.checkpoints)[0] is not None:
        return None
    place = Place.of(url)
    try:
        files = place.files()
        for name in reversed(_complete(files)):
            found = _fetch(place, files, folder, name)
            if found is not None:
                _fetch_history(place, files, folder)
                return found
    except (OSError, ValueError) as error:
        raise StorageError(
            f"the copy of the run cannot be read: {str(error).splitlines()[0]}",
            "Check mirror and the credentials of this machine; nothing has been begun.",
            url,
        ) from None
    return None


def _fetch(place: Place, files: dict[str, int], folder: RunFolder, name: str) -> Path | None:
    """One checkpoint, or None if it does not prove itself once it is here."""
    incoming = folder.checkpoints / f".{name}.fetched"
    shutil.rmtree(incoming, ignore_errors=True)
    for file in _inside(files, name):
        place.get(file, incoming / file.rpartition("/")[2])
    damage = find_damage(incoming)
    if damage is not None:
        shutil.rmtree(incoming)
        return None
    final = folder.checkpoints / name
    shutil.rmtree(final, ignore_errors=True)  # a damaged one
    incoming.rename(final)
    return final


def _fetch_history(place: Place, files: dict[str, int], folder: RunFolder) -> None:
    """The small files, unless the folder still has its own."""
    for name in files:
        if not name.startswith("checkpoints/") and not (folder.path / name).exists():
            place.get(name, folder.path / name)


def _step_of_held(held: Path) -> int:
    return step_of(held.with_name(held.name.removeprefix(_HELD)))
