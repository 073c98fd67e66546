"""`manifest` commands that open files: all cores of a cluster look at them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from echojepa.config import Strict
from echojepa.data.datasets.listing import Listing, look_at
from echojepa.data.decode.frames import ReadConfig
from echojepa.data.manifest.file import scan_manifest, write_manifest
from echojepa.data.manifest.import_csv import CsvFiles, measure_rows, opened_csv
from echojepa.data.manifest.sieve import Sieve
from echojepa.data.manifest.verify import Judged, check_all_rows, chunks_of, verify_rows
from echojepa.on_ray.connect import ClusterConfig, connected
from echojepa.on_ray.tasks import map_on_ray


class FilesJob(Strict):
    """How files are looked at, and by which cluster."""

    command = "manifest"

    read: ReadConfig = ReadConfig()
    """How the files of clips are read."""
    cluster: ClusterConfig = ClusterConfig()
    """Where to run."""


def launch_validate(file: Path, out: Path | None, rejected: Path | None, job: FilesJob) -> Sieve:
    """Look at every file of a manifest; write the good rows, with their hashes, to `out`.

    Raises:
        ManifestError: see `check_all_rows`; or no row is good, and there should be an `out`.
        StorageError: the storage of the files fails.
        ClusterError: there is no cluster at the address, or a process was killed again and again.
    """
    num_rows = check_all_rows(file)
    sieve = Sieve(next(scan_manifest(file)).schema, rejected)
    with connected(job.cluster):
        judged = _judged(partial(verify_rows, job.read), chunks_of(file), num_rows)
        if out is not None:
            write_manifest(sieve.good(judged), out)
        else:
            sieve.drain(judged)
    return sieve


def launch_import(files: CsvFiles, target: Path, rejected: Path, job: FilesJob) -> Sieve:
    """Write a manifest of the readable videos that a CSV of the reference names.

    Raises:
        ManifestError: see `opened_csv`; or no video can be used.
        StorageError, ClusterError: as `launch_validate`.
    """
    with opened_csv(files) as lines, connected(job.cluster):
        sieve = Sieve(lines.schema, rejected)
        judged = _judged(partial(measure_rows, job.read), lines.chunks(), lines.num_lines)
        write_manifest(sieve.good(judged), target)
    return sieve


def launch_data_set(listing: Listing, target: Path, rejected: Path, job: FilesJob) -> Sieve:
    """Write a manifest of the readable videos that the lists of a public data set name.

    Raises:
        ManifestError: no video can be used, or a patient is in two splits.
        StorageError, ClusterError: as `launch_validate`.
    """
    sieve = Sieve(listing.schema, rejected)
    with connected(job.cluster):
        judged = _judged(partial(look_at, job.read), listing.chunks(), listing.num_entries)
        write_manifest(sieve.good(judged), target)
    return sieve


def _judged(
    judge: Callable[[list[Any]], list[Judged]], chunks: Iterable[list[Any]], num_rows: int
) -> Iterator[list[Judged]]:
    """Chunks of rows or entries, judged in order, with a progress bar."""
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("files", total=num_rows)
        for judged in map_on_ray(judge, chunks):
            yield judged
            bar.advance(task, len(judged))
