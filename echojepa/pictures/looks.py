"""How encoders look in plots: a colour, a marker and dashes each, the same on all of a page.

Eight colours for white paper that people with colour-blindness tell apart (Petroff,
arXiv:2107.02270); a marker goes with every colour, so that no plot needs colour alone. From the
ninth encoder on the colours begin again, with other markers and dashes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from echojepa.probes.fitting import BASELINE

PALETTE = (
    "#1845fb",
    "#ff5e02",
    "#c91f16",
    "#c849a9",
    "#adad7d",
    "#86c8dd",
    "#578dff",
    "#656364",
)
GREY = "#8a8f98"
"""Of the baseline, of reference lines, and of what has no value."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DASHES = ((), (5.0, 2.0), (1.5, 1.5), (6.0, 2.0, 1.5, 2.0))


class Look(NamedTuple):
    """Of one encoder."""

    colour: str
    """#rrggbb."""
    marker: str
    """Matplotlib's name of it."""
    dashes: tuple[float, ...]
    """Lengths of line and gap, in points; empty for a solid line."""


def looks(names: Iterable[str]) -> dict[str, Look]:
    """The look of every name, in order of appearance; the baseline is grey and takes no colour."""
    found: dict[str, Look] = {}
    for name in dict.fromkeys(names):
        index = sum(known != BASELINE for known in found)
        turn, place = divmod(index, len(PALETTE))
        marker = MARKERS[(place + 3 * turn) % len(MARKERS)]
        found[name] = Look(PALETTE[place], marker, _DASHES[turn % len(_DASHES)])
        if name == BASELINE:
            found[name] = Look(GREY, "|", (1.0, 2.0))
    return found
