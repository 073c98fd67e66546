"""Write phantom studies as video files with a manifest.

    manifest = write_phantom(PhantomConfig(num_studies=100), Path("phantom"))

A folder that was left half-way is finished by the same call. It holds (in the layout `flat`):

    clips/<clip_id>.mp4, .avi or .dcm   one per study, view and take
    records/<study_id>.json             what was written, with hashes: what a resumed call checks
    phantom.json                        the settings
    card.md                             what the data set is, for its users
    manifest.parquet                    written last
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from echojepa.config import binding_differences, to_tree
from echojepa.data.manifest.file import write_manifest
from echojepa.data.manifest.splits import assign_splits
from echojepa.errors import PhantomError
from echojepa.phantom.clip import patient_number
from echojepa.phantom.config import VERSION, PhantomConfig
from echojepa.phantom.files.card import card
from echojepa.phantom.files.clip_file import TABLE_SCHEMA, content_hash, write_clip
from echojepa.phantom.files.identity import draw_identity
from echojepa.phantom.files.layouts import pseudonym, write_lists

MapStudies = Callable[[Callable[[int], list[dict[str, Any]]], Iterable[int]], Iterable[Any]]
"""Applies a function to study numbers, in order: `map`, or one that uses a cluster."""

_SETTINGS = "phantom.json"


def write_phantom(
    config: PhantomConfig,
    out: Path,
    map_studies: MapStudies = map,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write `config.num_studies` studies into the folder `out`; return the manifest's path.

    The files are the same bytes however the studies are mapped. Clips that are complete (by their
    recorded hash) are kept; more studies can be added to a folder later.

    Args:
        progress: called after every study with the number of studies done and of all.

    Raises:
        PhantomError: `out` cannot be written, is not seen by those that render, or holds something
            else or a phantom with other settings.
    """
    tables: list[pa.Table] = []
    with explained(out):
        _prepare(config, out)
        studies = map_studies(partial(write_study, config, out), range(config.num_studies))
        for done, rows in enumerate(studies, start=1):
            tables.append(pa.Table.from_pylist(rows, schema=TABLE_SCHEMA))
            if progress is not None:
                progress(done, config.num_studies)
        table = _with_splits(config, pa.concat_tables(tables))
        write_lists(config, _rows_of(table), out)
        if config.planted_identities:
            _list_identities(config, out)
        (out / "card.md").write_text(card(config, table))
        return write_manifest(table, out / "manifest.parquet")


@contextmanager
def explained(out: Path) -> Iterator[None]:
    """Turn what can go wrong with a folder into an error that says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise PhantomError(
            f"cannot write a phantom: {reason}", "Give a folder that can be written.", str(out)
        ) from error


def _prepare(config: PhantomConfig, out: Path) -> None:
    """Make the folder, or check that it holds the same phantom."""
    out.mkdir(parents=True, exist_ok=True)
    settings = _read_json(out / _SETTINGS)
    partial_settings = f"{_SETTINGS}.partial"
    if settings is None and any(path.name != partial_settings for path in out.iterdir()):
        damaged = (out / _SETTINGS).exists()
        what = "its phantom.json is damaged" if damaged else "it holds something else"
        raise PhantomError(
            f"the folder is not empty, and {what}", "Give a new or empty one.", str(out)
        )
    if settings is not None and settings.pop("version", None) != VERSION:
        raise PhantomError(
            f"the folder holds a phantom of another version than {VERSION}",
            "Give another folder, or delete this one.",
            str(out),
        )
    if settings is not None and settings["num_studies"] > config.num_studies:
        raise PhantomError(
            f"the folder holds {settings['num_studies']} studies, more than {config.num_studies}",
            "Ask for as many or more, or give another folder.",
            str(out),
        )
    changed = binding_differences(settings, config) if settings is not None else []
    if changed:
        raise PhantomError(
            f"the folder holds a phantom with another {', '.join(changed)}",
            "Give another folder, delete this one, or repeat its settings (phantom.json).",
            str(out),
        )
    _write_json({"version": VERSION, **to_tree(config)}, out / _SETTINGS)
    (out / "records").mkdir(exist_ok=True)


def _with_splits(config: PhantomConfig, table: pa.Table) -> pa.Table:
    """Splits by patient; the held-out vendor's patients are in the test split."""
    split = assign_splits(table.to_batches(), config.split_fractions, config.seed)
    table = pa.Table.from_batches(split)
    if config.held_out_vendor is None:
        return table
    held = pc.equal(table["vendor"], config.held_out_vendor)
    splits = pc.if_else(held, "test", table["split"])
    return table.set_column(table.column_names.index("split"), "split", splits)


def _rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=1000):
        yield from batch.to_pylist()


def write_study(config: PhantomConfig, out: Path, study: int) -> list[dict[str, Any]]:
    """Write the clips of one study that aren't there yet; return their manifest rows."""
    if not (out / _SETTINGS).exists():
        raise PhantomError(
            "a process that renders clips does not see the folder",
            "Give a folder that all nodes of the cluster share.",
            str(out),
        )
    record = out / "records" / f"{pseudonym(config, 'study', study)}.json"
    known = {row["clip_id"]: row for row in _read_json(record) or []}
    takes = [(view, take) for view in config.views for take in range(config.clips_per_view)]
    rows = []
    for number, (view, take) in enumerate(takes):
        row = known.get(pseudonym(config, "clip", study, view, take))
        if row is None or content_hash(out / row["uri"]) != row["content_hash"]:
            row = write_clip(config, out, study, (view, take, number))
        rows.append(row)
    if rows != list(known.values()):
        _write_json(rows, record)
    return rows


def _list_identities(config: PhantomConfig, out: Path) -> None:
    """Say what was planted for which patient: the key to what must have gone."""
    lines = ["patient_id,name,number,birth_date"]
    patients = {patient_number(config, study)[0] for study in range(config.num_studies)}
    for patient in sorted(patients):
        who = draw_identity(config.seed, patient)
        name = pseudonym(config, "patient", patient)
        lines.append(f"{name},{who.dicom_name},{who.number},{who.birth_date}")
    (out / "identities.csv").write_text("\n".join(lines) + "\n")


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
