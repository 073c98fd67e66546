"""What stands in the cells of one entry of a list."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from echojepa.errors import ClipError

Population = Literal["adult", "paediatric"]
_NOTHING = frozenset({"", "na", "n/a", "nan", "none", "null"})
"""How lists write that something is not known, in small letters."""
_AGE_BANDS: dict[Population, tuple[tuple[float, str], ...]] = {
    "adult": ((40, "00-39"), (60, "40-59"), (80, "60-79"), (math.inf, "80+")),
    "paediatric": ((1, "00"), (6, "01-05"), (12, "06-11"), (15, "12-14"), (math.inf, "15+")),
}
"""By population: the age in years at which a band ends, and its name."""


class Cells:
    """The cells of one entry, by column; remembers which of them could not be used."""

    def __init__(self, cells: Mapping[str, str]) -> None:
        self._cells = cells
        self.notes: list[str] = []
        """What was left out of the row."""

    def text(self, name: str) -> str | None:
        """Text without the spaces around it; None if nothing is there."""
        cell = self._cells.get(name, "").strip()
        return None if cell.lower() in _NOTHING else cell

    def label(self, name: str, least: float, most: float) -> float:
        """A number that the row needs.

        Raises:
            ClipError: stage "list": no_label, bad_label.
        """
        cell = self.text(name)
        if cell is None:
            raise ClipError("list", "no_label", f"{name} is empty")
        value = _number(cell)
        if value is None:
            raise ClipError("list", "bad_label", f"{name} is not a number")
        if not least <= value <= most:
            what = f"{name} is {value:g}, not from {least:g} to {most:g}"
            raise ClipError("list", "bad_label", what)
        return value

    def known(self, name: str, least: float, most: float) -> float | None:
        """A number that the row can do without; an impossible one is left out and noted."""
        try:
            return None if self.text(name) is None else self.label(name, least, most)
        except ClipError:
            self.notes.append(f"{name} is impossible and left out")
            return None

    def fact(self, name: str) -> float | None:
        """What the list says of the file; None if it is no number."""
        return _number(self.text(name) or "")


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def age_band(years: float | None, population: Population) -> str | None:
    """The name of an age group, such as "40-59"; names sort as ages do.

    The bands of children are those by which EchoNet-Pediatric was published.
    """
    if years is None:
        return None
    return next(name for end, name in _AGE_BANDS[population] if years < end)
