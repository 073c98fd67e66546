"""Text files of others: opened, and CSV tables read line by line. Errors never quote a line."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO

from echojepa.errors import ManifestError


class TextTable(NamedTuple):
    """A CSV file with a header."""

    header: list[str]
    """Names of the columns, without the spaces around them."""
    rows: Iterator[tuple[int, list[str]]]
    """Number in the file and cells, as many as the header has, of every line that is not blank."""


@contextmanager
def opened_text(file: Path) -> Iterator[TextIO]:
    """A text file, with or without a byte order mark.

    Raises:
        ManifestError: there is no such file, or it holds no text; also while it is read.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            yield opened
    except OSError:
        raise ManifestError("no such file", "Check the path.", str(file)) from None
    except (UnicodeDecodeError, csv.Error):
        raise ManifestError("not a text file", "Check the path.", str(file)) from None


@contextmanager
def opened_table(file: Path) -> Iterator[TextTable]:
    """A CSV file with a header.

    Raises:
        ManifestError: as `opened_text`; or, while it is read, a line has fewer or more cells than
            the header.
    """
    with opened_text(file) as opened:
        reader = csv.reader(opened)
        header = [name.strip() for name in next(reader, [])]

        def rows() -> Iterator[tuple[int, list[str]]]:
            for row in filter(None, reader):
                if len(row) != len(header):
                    what = f"line {reader.line_num} has {len(row)} cells, the header {len(header)}"
                    raise ManifestError(what, "Write every cell, if an empty one.", str(file))
                yield reader.line_num, row

        yield TextTable(header, rows())
