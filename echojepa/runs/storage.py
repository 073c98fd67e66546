"""A folder on some storage: S3, GCS, or a disk, all by pyarrow."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from echojepa.errors import StorageError, first_line

_CHUNK = 8 << 20
_TRIES = 5
_FIRST_PAUSE_SECONDS = 1.0


@dataclass(frozen=True)
class StorageFolder:
    """A folder on some storage."""

    filesystem: pafs.FileSystem
    root: str
    url: str
    """As the user named it, for errors."""

    @classmethod
    def of(cls, url: str) -> StorageFolder:
        """What a URL that pyarrow knows, or a path, names.

        Raises:
            StorageError: the URL is not understood.
        """
        if "://" not in url:
            return cls(pafs.LocalFileSystem(), str(Path(url).absolute()), url)
        try:
            filesystem, root = pafs.FileSystem.from_uri(url)
        except (ValueError, OSError) as error:
            raise StorageError(
                f"not a folder that can be copied to: {error}",
                "Name s3://bucket/path or a folder.",
                url,
            ) from None
        return cls(filesystem, root.rstrip("/"), url)

    def check(self) -> None:
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
                f"the copy of the run cannot be written: {first_line(error)}",
                "Check mirror, its bucket and the credentials of this machine.",
                self.url,
            ) from None

    def put(self, file: Path, name: str) -> None:
        """Copy a file there; on failure try again, with growing pauses. Raises `OSError`."""
        for number in range(_TRIES):
            try:
                with file.open("rb") as opened, self._writing(f"{self.root}/{name}") as stream:
                    shutil.copyfileobj(opened, stream, _CHUNK)
                return
            except FileNotFoundError:
                raise
            except OSError:
                if number == _TRIES - 1:
                    raise
                time.sleep(_FIRST_PAUSE_SECONDS * 2**number)

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

    def read(self, name: str) -> bytes | None:
        """A small file, or None if it is not there. Raises `OSError`."""
        try:
            with self.filesystem.open_input_stream(f"{self.root}/{name}") as stream:
                content: bytes = stream.read()
                return content
        except FileNotFoundError:
            return None

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
