"""The entries of a data set's own lists, and what their files say to them.

listing = read_echonet_dynamic(root)        # checks the lists, opens no video
for entries in listing.chunks():
    look_at(ReadConfig(), entries)          # opens the videos; any process may
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from echojepa.data.datasets.cells import Cells
from echojepa.data.decode.frames import ReadConfig
from echojepa.data.manifest.schema import SCHEMA
from echojepa.data.manifest.text_table import opened_table
from echojepa.data.manifest.verify import CHUNK_ROWS, NOTES, Judged, measure
from echojepa.data.problem import Problem, guarded
from echojepa.errors import ClipError, ManifestError

_HEADER_SHOWN = 200
_RATE_TOLERANCE = 0.01
_HALF_FRAME = 0.5
"""Lists round frame rates to whole numbers."""


class Entry(NamedTuple):
    """What a list says of one clip."""

    row: dict[str, Any]
    """Manifest columns; `clip_id` and `uri` at least."""
    problem: Problem | None = None
    """Why it can't become a row of a manifest."""
    stated: Mapping[str, float | None] | None = None
    """What the list says of the file, by manifest column."""
    notes: tuple[str, ...] = ()
    """What was left out of the row."""
    make: Callable[[ReadConfig], tuple[str, ...]] | None = None
    """Writes the video that `uri` names, if the data set holds none; returns further notes."""


def entry_of(row: dict[str, Any], cells: Cells, read: Callable[[Cells], dict[str, Any]]) -> Entry:
    """An entry whose other columns `read` makes of its cells, or the reason why it can't.

    Args:
        row: what names the clip, however bad its entry: `clip_id` and `uri`.
        read: raises `ClipError` of stage "list".
    """
    try:
        found = read(cells)
    except ClipError as error:
        return Entry(row, Problem(error.stage, error.kind, error.message))
    return Entry({**row, **found}, notes=tuple(cells.notes))


class Listing:
    """All entries of a data set. They are read twice and not held, but for ids and digests."""

    def __init__(
        self, entries: Callable[[], Iterator[Entry]], labels: Mapping[str, pa.DataType]
    ) -> None:
        """Read the lists once.

        Args:
            entries: reads the lists anew each time.
            labels: columns of the rows beside the standard ones.

        Raises:
            ManifestError: a list can't be read.
        """
        self._entries = entries
        self.schema = pa.schema([*SCHEMA, *(pa.field(name, kind) for name, kind in labels.items())])
        """Of the manifest."""
        self.num_entries = 0
        self._contradictory: set[str] = set()
        """Ids of clips of which the lists say several things."""
        seen: dict[str, bytes] = {}
        for entry in entries():
            self.num_entries += 1
            clip_id, said = entry.row["clip_id"], _digest(entry.row)
            if seen.setdefault(clip_id, said) != said:
                self._contradictory.add(clip_id)

    def chunks(self) -> Iterator[list[Entry]]:
        """The entries in the order of the lists, some at a time; repeated ones have a problem."""
        entries = self._without_repeats()
        while some := list(islice(entries, CHUNK_ROWS)):
            yield some

    def _without_repeats(self) -> Iterator[Entry]:
        passed: set[str] = set()
        for entry in self._entries():
            clip_id = entry.row["clip_id"]
            what = None
            if clip_id in self._contradictory:
                what = "listed several times, and not as the same"
            elif clip_id in passed:
                what = "listed before, as the same"
            passed.add(clip_id)
            bad = entry.problem or (Problem("list", "listed_twice", what) if what else None)
            yield entry._replace(problem=bad)


def _digest(row: dict[str, Any]) -> bytes:
    return hashlib.blake2b(repr(sorted(row.items())).encode(), digest_size=8).digest()


def look_at(how: ReadConfig, entries: list[Entry]) -> list[Judged]:
    """Open the files of entries; a good row holds what its file says, under `NOTES` also what the
    list says otherwise."""
    judged: list[Judged] = []
    for entry in entries:
        row, problem = entry.row, entry.problem
        if problem is None:
            found, problem = guarded(partial(_measured, entry, how))
            row = {**row, **(found or {})}
        judged.append((row, problem))
    return judged


def _measured(entry: Entry, how: ReadConfig) -> dict[str, Any]:
    made = entry.make(how) if entry.make else ()
    found = measure(entry.row["uri"], how)
    stated = {name: said for name, said in (entry.stated or {}).items() if said is not None}
    differing = (
        f"{name} is not what the list says"
        for name, said in stated.items()
        if not _agree(name, said, found[name])
    )
    return {**found, NOTES: (*entry.notes, *made, *differing)}


def _agree(name: str, said: float, found: float) -> bool:
    if name == "native_fps":
        return abs(said - found) <= max(_HALF_FRAME, _RATE_TOLERANCE * found)
    return said == found


def read_list(file: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, Cells]]:
    """Number in the file and cells of every line of a list with a header.

    Raises:
        ManifestError: a column is missing, or the file can't be read.
    """
    with opened_table(file) as (header, rows):
        missing = [name for name in columns if name not in header]
        if missing:
            there = ", ".join(header)[:_HEADER_SHOWN] or "no header"
            raise ManifestError(
                f"the list lacks {', '.join(missing)}; it has {there}",
                f"Give the list as it was published: {', '.join(columns)}.",
                str(file),
            )
        for number, cells in rows:
            yield number, Cells(dict(zip(header, cells, strict=True)))


def require(root: Path, title: str, parts: Iterable[str]) -> None:
    """Raise `ManifestError` unless a folder holds what makes it that data set."""
    parts = tuple(parts)
    missing = [part for part in parts if not (root / part).exists()]
    if missing:
        lacking = f"not the folder of {title}: it lacks {', '.join(missing)}"
        what = lacking if root.is_dir() else "no such folder"
        raise ManifestError(what, f"Name the folder that holds {', '.join(parts)}.", str(root))
