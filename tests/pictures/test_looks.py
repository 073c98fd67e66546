"""Colours: people with colour-blindness tell them apart, and no two encoders look the same."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from echojepa.pictures.looks import GREY, MARKERS, PALETTE, looks
from echojepa.probes.fitting import BASELINE

SEEN = {
    "all cones": np.eye(3),
    "no red cones": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "no green cones": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "no blue cones": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
"""How linear RGB is seen (Machado et al., IEEE Trans. Vis. Comput. Graph. 15:1291, 2009)."""
TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def lab(colour: str, seen: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of a colour."""
    srgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(seen @ linear, 0, 1) / [0.95047, 1.0, 1.08883]
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("eyes", SEEN)
def test_any_two_colours_differ_clearly_to_all_eyes(eyes: str) -> None:
    """A difference of 2.3 is just noticeable."""
    colours = [lab(colour, SEEN[eyes]) for colour in (*PALETTE, GREY)]
    assert min(float(np.linalg.norm(a - b)) for a, b in combinations(colours, 2)) > 12


def test_every_colour_stands_out_on_white() -> None:
    white = lab("#ffffff", SEEN["all cones"])
    for colour in PALETTE:
        assert np.linalg.norm(lab(colour, SEEN["all cones"]) - white) > 30


def test_the_baseline_is_grey_and_takes_no_colour() -> None:
    found = looks(["one", BASELINE, "two", "one"])
    assert list(found) == ["one", BASELINE, "two"]
    assert [look.colour for look in found.values()] == [PALETTE[0], GREY, PALETTE[1]]


def test_up_to_eight_encoders_differ_in_colour_and_in_marker_and_more_do_not_look_alike() -> None:
    names = [str(i) for i in range(24)]
    found = list(looks(names).values())
    assert len({look.colour for look in found[:8]}) == len({look.marker for look in found[:8]}) == 8
    assert len(set(found)) == 24
    assert len({(look.colour, look.marker) for look in found}) == 24
    assert {look.marker for look in found} <= set(MARKERS)
