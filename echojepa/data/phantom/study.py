"""Write phantom studies as video files with a manifest, on any number of processes.

    manifest = write_phantom(PhantomConfig(num_studies=100), Path("phantom"), num_processes=4)

A folder that was left half-way is finished by the same call. It holds:

    clips/<clip_id>.mp4 or .avi    one per patient, view and take
    records/<study_id>.json        what was written, with hashes: what a resumed call checks
    phantom.json                   the settings
    manifest.parquet               written last
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from echojepa.config import binding_differences, to_tree
from echojepa.data.manifest import SCHEMA, assign_splits, write_manifest
from echojepa.data.phantom.clip import render_clip
from echojepa.data.phantom.config import PhantomConfig
from echojepa.data.phantom.views import VIEWS
from echojepa.data.phantom.write import write_video
from echojepa.errors import PhantomError

_LABELS = ("lvef", "edv_ml", "esv_ml", "heart_rate")
_TABLE_SCHEMA = pa.schema([*SCHEMA, *(pa.field(name, pa.float64()) for name in _LABELS)])
_SETTINGS = "phantom.json"


def write_phantom(
    config: PhantomConfig,
    out: Path,
    num_processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write `config.num_studies` studies into the folder `out`; return the manifest's path.

    The files are the same bytes for any number of processes. Clips that are complete (by their
    recorded hash) are kept; more studies can be added to a folder later.

    Args:
        progress: called after every study with the number of studies done and of all.

    Raises:
        PhantomError: `out` cannot be written, or holds something else or a phantom with other
            settings, or a process was killed.
    """
    if num_processes < 1:
        raise PhantomError(f"num_processes = {num_processes} is not above 0", "Give at least 1.")
    rows: list[dict[str, Any]] = []
    with _explained(out):
        _prepare(config, out)
        with closing(_studies(config, out, num_processes)) as studies:
            for done, study_rows in enumerate(studies, start=1):
                rows += study_rows
                if progress is not None:
                    progress(done, config.num_studies)
        table = pa.Table.from_pylist(rows, schema=_TABLE_SCHEMA)
        table = assign_splits(table, config.split_fractions, config.seed)
        return write_manifest(table, out / "manifest.parquet")


@contextmanager
def _explained(out: Path) -> Iterator[None]:
    """Turn what can go wrong with a folder or a process into an error that says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise PhantomError(
            f"cannot write a phantom: {reason}", "Give a folder that can be written.", str(out)
        ) from error
    except BrokenProcessPool as error:
        raise PhantomError(
            "a process that rendered clips was killed",
            "Call again to resume, with fewer processes if memory was short.",
            str(out),
        ) from error


def _prepare(config: PhantomConfig, out: Path) -> None:
    """Make the folder, or check that it holds the same phantom."""
    out.mkdir(parents=True, exist_ok=True)
    settings = _read_json(out / _SETTINGS)
    if settings is None and any(out.iterdir()):
        raise PhantomError(
            "the folder is not empty and holds no phantom", "Give a new or empty one.", str(out)
        )
    changed = binding_differences(settings, config) if settings is not None else []
    if changed:
        raise PhantomError(
            f"the folder holds a phantom with another {', '.join(changed)}",
            "Give another folder, delete this one, or repeat its settings (phantom.json).",
            str(out),
        )
    _write_json(to_tree(config), out / _SETTINGS)
    for name in ("clips", "records"):
        (out / name).mkdir(exist_ok=True)


def _studies(
    config: PhantomConfig, out: Path, num_processes: int
) -> Generator[list[dict[str, Any]], None, None]:
    """Yields the manifest rows of each study, in order."""
    write = partial(_write_study, config, out)
    numbers = range(config.num_studies)
    if num_processes == 1:
        yield from map(write, numbers)
        return
    # Spawned, not forked: the caller may hold threads and locks. Rendering is one core's work.
    with ProcessPoolExecutor(
        min(num_processes, config.num_studies),
        get_context("spawn"),
        initializer=cv2.setNumThreads,
        initargs=(1,),
    ) as pool:
        try:
            yield from pool.map(write, numbers)
        finally:
            pool.shutdown(cancel_futures=True)


def _write_study(config: PhantomConfig, out: Path, study: int) -> list[dict[str, Any]]:
    """Write the clips of one study that aren't there yet; return their manifest rows."""
    record = out / "records" / f"{_pseudonym(config, 'study', study)}.json"
    known = {row["clip_id"]: row for row in _read_json(record) or []}
    rows = []
    for view in config.views:
        for take in range(config.clips_per_view):
            row = known.get(_pseudonym(config, "clip", study, view, take))
            if row is None or _content_hash(out / row["uri"]) != row["content_hash"]:
                row = _write_clip(config, out, study, view, take)
            rows.append(row)
    if rows != list(known.values()):
        _write_json(rows, record)
    return rows


def _write_clip(
    config: PhantomConfig, out: Path, study: int, view: str, take: int
) -> dict[str, Any]:
    """Render and write one clip; return its manifest row."""
    clip = render_clip(config, study, view, take)
    clip_id = _pseudonym(config, "clip", study, view, take)
    lot = np.random.default_rng([config.seed, study, 1 + list(VIEWS).index(view), take, 1])
    suffix = ".avi" if lot.random() < config.avi_fraction else ".mp4"
    uri = f"clips/{clip_id}{suffix}"
    write_video(clip.frames, clip.native_fps, out / uri)
    return {
        "clip_id": clip_id,
        "patient_id": _pseudonym(config, "patient", study),
        "study_id": _pseudonym(config, "study", study),
        "uri": uri,
        "num_frames": config.num_frames,
        "native_fps": clip.native_fps,
        "height": config.size,
        "width": config.size,
        "view": view,
        "doppler": "none",
        "split": None,
        "population": "phantom",
        "content_hash": _content_hash(out / uri),
        **clip.labels,
    }


def _pseudonym(config: PhantomConfig, *what: str | int) -> str:
    """An opaque name: 16 hexadecimal digits that say nothing about what they name."""
    text = "/".join(map(str, what))
    key = f"phantom {config.seed}".encode()
    return hashlib.blake2b(text.encode(), key=key, digest_size=8).hexdigest()


def _content_hash(path: Path) -> str | None:
    """As the manifest holds it; none if there is no such file."""
    if not path.is_file():
        return None
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def _read_json(path: Path) -> Any:
    """The content of a JSON file; none if it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _write_json(content: Any, path: Path) -> None:
    aside = path.with_name(f"{path.name}.partial")
    aside.write_text(json.dumps(content, indent=1))
    aside.replace(path)
