"""The picture of a clip and its masks: what is tinted is what is hidden."""

from __future__ import annotations

import numpy as np
import pytest

from echojepa.models.attention import Grid
from echojepa.pictures.masks import hidden_cells, mask_picture

GRID = Grid(2, 2, 3)
CLIP = np.full((8, 8, 12, 3), 200, np.uint8)  # cells of 4 x 4 pixels
GAP = 2


def panel(picture: np.ndarray, row: int, column: int) -> np.ndarray:
    """One frame of the picture, without the gap."""
    return picture[row * 10 : row * 10 + 8, column * 14 : column * 14 + 12]


def test_indices_become_cells() -> None:
    cells = hidden_cells(np.array([0, 5, 7]), GRID)
    assert cells.shape == GRID
    assert np.argwhere(cells).tolist() == [[0, 0, 0], [0, 1, 2], [1, 0, 1]]


@pytest.mark.parametrize("num_generators", [0, 1, 3])
@pytest.mark.parametrize(("num_frames", "shown"), [(8, 4), (4, 4), (2, 2)])
def test_size(num_generators: int, num_frames: int, shown: int) -> None:
    hiddens = [np.array([1])] * num_generators
    picture = mask_picture(CLIP[:num_frames], hiddens, GRID)
    assert picture.dtype == np.uint8
    assert picture.shape == ((num_generators + 1) * (8 + GAP), shown * (12 + GAP), 3)


def test_hidden_cells_are_tinted_and_nothing_else() -> None:
    hiddens = [np.array([0, 8]), np.array([5])]  # times 0 and 1; time 0
    picture = mask_picture(CLIP, hiddens, GRID)
    tint = (0.25 * 200 + 0.75 * np.array([36, 84, 148])).astype(np.uint8)
    assert tint[2] > tint[1] > tint[0]
    for column, time in enumerate([0, 0, 1, 1]):  # frames 0, 2, 5 and 7 of 8
        assert (panel(picture, 0, column) == 200).all()
        for row, hidden in enumerate(hiddens, start=1):
            cells = hidden_cells(hidden, GRID)[time].repeat(4, axis=0).repeat(4, axis=1)
            shown = panel(picture, row, column)
            assert (shown[cells] == tint).all()
            assert (shown[~cells] == 200).all()


def test_frames_span_the_clip_and_gaps_are_black() -> None:
    clip = np.zeros((8, 8, 12, 3), np.uint8) + np.arange(1, 9, dtype=np.uint8)[:, None, None, None]
    picture = mask_picture(clip, [], GRID)
    assert [int(panel(picture, 0, column).max()) for column in range(4)] == [1, 3, 6, 8]
    assert not picture[8:].any()
    assert not picture[:, 12:14].any()


def test_the_clip_is_not_painted_on() -> None:
    before = CLIP.copy()
    mask_picture(CLIP, [np.arange(12)], GRID)
    assert np.array_equal(CLIP, before)
