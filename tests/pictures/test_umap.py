"""The map of features: always the same, and measured where the features are."""

from __future__ import annotations

import re

import numpy as np
import pytest
from sklearn.metrics import silhouette_score
from support.pages import Page

from echojepa.errors import ManifestError
from echojepa.pictures.umap import layout, silhouette, umap_section

pytestmark = pytest.mark.integration  # UMAP is compiled first, which takes seconds.

NUMBER = 60
RNG = np.random.default_rng(0)
IDS = [f"clip{i}" for i in range(NUMBER)]
WHICH = np.arange(NUMBER) % 3
FEATURES = RNG.normal(size=(NUMBER, 70)) + 6 * RNG.normal(size=(3, 70))[WHICH]
VIEWS = [None if i == 5 else "<A4C>" if w == 0 else f"view {w}" for i, w in enumerate(WHICH)]
EF = [None if i == 7 else float(w) for i, w in enumerate(WHICH)]
SCALE = np.abs(RNG.normal(size=(NUMBER, 1))) + 0.5


def section(order: np.ndarray, **changes: int) -> str:
    """A section of the clips in some order, coloured by view and by a number."""
    columns = {"view": [VIEWS[i] for i in order], "<EF>": [EF[i] for i in order]}
    ids = [IDS[i] for i in order]
    return umap_section("<ours>", ids, (FEATURES * SCALE)[order], columns, **changes)


def test_the_bytes_are_always_the_same_in_whatever_order_clips_come() -> None:
    once = section(np.arange(NUMBER))
    assert section(np.arange(NUMBER)) == once
    assert section(np.arange(NUMBER)[::-1]) == once
    page = Page(once)
    (image,) = page.images()
    assert image.shape[1] > 1.5 * image.shape[0] and image.std() > 10
    assert "Map of features: <ours>" in page.text and "60 of 60 clips" in page.text


def test_the_silhouette_is_that_of_the_features_and_leaves_unknown_clips_out() -> None:
    known = np.arange(NUMBER) != 5
    wanted = silhouette_score(FEATURES[known], WHICH[known], metric="cosine")
    text = section(np.arange(NUMBER))
    found = re.search(r"classes overlap\): view (-?\d\.\d{3})\.<", text)
    assert found and float(found[1]) == pytest.approx(wanted, abs=6e-4)
    assert 0.5 < wanted < 0.999


def test_classes_that_cannot_be_scored_are_not() -> None:
    assert silhouette(FEATURES[:4], np.array(["a", "a", "a", "a"])) is None
    assert silhouette(FEATURES[:4], np.array(["a", "b", "c", "d"])) is None
    assert silhouette(FEATURES[:4], np.array(["a", "b", "unknown", "unknown"])) is None


def test_what_is_apart_in_the_features_is_apart_on_the_map() -> None:
    places = layout(FEATURES * SCALE)
    assert places.shape == (NUMBER, 2)
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert (WHICH[distance.argmin(axis=1)] == WHICH).all()


def test_of_many_clips_those_with_the_lowest_hashes_are_drawn() -> None:
    text = section(np.arange(NUMBER), max_clips=20)
    assert "20 of 60 clips" in text
    assert section(np.arange(NUMBER)[::-1], max_clips=20) == text


def test_more_classes_than_colours_are_drawn_in_grey_and_counted() -> None:
    names = [f"class {i // 2:02d}" for i in range(NUMBER)]
    (many,) = Page(umap_section("x", IDS, FEATURES, {"name": names})).images()
    assert many.std() > 10


@pytest.mark.parametrize("number", [0, 3])
def test_too_few_clips_are_an_error(number: int) -> None:
    with pytest.raises(ManifestError, match=f"needs 4 clips, and there are {number}"):
        umap_section("x", IDS[:number], FEATURES[:number], {"view": VIEWS[:number]})
    if number:
        assert "4 of 4" in umap_section("x", IDS[:4], FEATURES[:4], {"view": VIEWS[:4]})
