"""Age bands meet without gaps, sort as ages do, and never hold a child beside an adult."""

from __future__ import annotations

import pytest

from echojepa.data.datasets.cells import Cells, Population, age_band
from echojepa.errors import ClipError


@pytest.mark.parametrize("population", ["adult", "paediatric"])
def test_older_people_are_never_in_an_earlier_band(population: Population) -> None:
    bands = [age_band(years / 4, population) for years in range(440)]
    assert all(bands)
    assert [str(band) for band in bands] == sorted(map(str, bands))
    assert age_band(None, population) is None


@pytest.mark.parametrize(
    ("years", "band"),
    [(0.99, "00"), (1, "01-05"), (5.9, "01-05"), (6, "06-11"), (14, "12-14"), (18, "15+")],
)
def test_bands_of_children(years: float, band: str) -> None:
    assert age_band(years, "paediatric") == band


@pytest.mark.parametrize("cell", ["", " ", "NaN", "n/a", "None", "NULL"])
def test_ways_to_say_nothing(cell: str) -> None:
    cells = Cells({"EF": cell})
    assert cells.text("EF") is None and cells.known("EF", 1, 100) is None
    assert cells.notes == []
    with pytest.raises(ClipError, match="no_label"):
        cells.label("EF", 1, 100)


@pytest.mark.parametrize("cell", ["inf", "-inf", "1e999", "5,5", "0.99", "100.1", "five"])
def test_labels_that_are_no_possible_numbers(cell: str) -> None:
    with pytest.raises(ClipError, match="bad_label"):
        Cells({"EF": cell}).label("EF", 1, 100)
    assert Cells({"EF": " 55.5 "}).label("EF", 1, 100) == 55.5
