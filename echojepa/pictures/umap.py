"""A map of features: clips that an encoder finds alike lie close together.

The steps: L2 norm, principal components, UMAP (McInnes et al., arXiv:1802.03426) on cosine
distances. A map shows; what it shows is measured beside it, in the features themselves.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from echojepa.errors import ManifestError
from echojepa.page import section
from echojepa.pictures.looks import GREY, Look, looks
from echojepa.pictures.plots import image, name_panel, panels
from echojepa.probes.metrics import Floats
from echojepa.probes.tasks import pick

MAX_CLIPS = 5000
_FEWEST_CLIPS = 4
_NUM_COMPONENTS = 50
_NUM_NEIGHBOURS = 15
_MIN_DISTANCE = 0.1
_SEED = 0
_MAX_CLASSES = 16
_NUM_LAYERS = 8
UNKNOWN = "unknown"


def umap_section(
    name: str,
    clip_ids: Sequence[str],
    features: Floats,
    columns: Mapping[str, Sequence[Any]],
    max_clips: int = MAX_CLIPS,
) -> str:
    """One map of an encoder's features, drawn once per column; equal input gives equal bytes.

    Args:
        name: of the encoder.
        clip_ids: of clips that could be read, [n].
        features: of these, [n, D].
        columns: what the clips are coloured by, [n] each. Numbers get a colour scale (None and NaN
            are grey), anything else gets a colour per class (None is "unknown").
        max_clips: of more clips so many are drawn, picked by a hash of their ids.

    Raises:
        ManifestError: fewer than four clips, which no map can be made of.
    """
    if len(clip_ids) < _FEWEST_CLIPS:
        raise ManifestError(
            f"a map of features needs {_FEWEST_CLIPS} clips, and there are {len(clip_ids)}",
            "Evaluate more clips, or draw no map.",
        )
    row_of = {clip_id: row for row, clip_id in enumerate(clip_ids)}
    shown = np.array([row_of[clip_id] for clip_id in pick(clip_ids, max_clips, _SEED)])
    values = {column: _typed(cells, shown) for column, cells in columns.items()}
    scores = {
        column: silhouette(features[shown], cells)
        for column, cells in values.items()
        if cells.dtype.kind == "U"
    }
    told = [f"{html.escape(c)} {score:.3f}" for c, score in scores.items() if score is not None]
    note = (
        f"<p class='note'>{len(shown)} of {len(clip_ids)} clips. UMAP of L2-normed features, "
        f"{_NUM_COMPONENTS} principal components at most, cosine distances, {_NUM_NEIGHBOURS} "
        f"neighbours, least distance {_MIN_DISTANCE}. Axes have no meaning, and distances between "
        "groups little.</p>"
    )
    if told:
        note += (
            "<p class='note'>Silhouette of the classes in the features themselves (cosine; 1 at "
            f"best, 0 where classes overlap): {', '.join(told)}.</p>"
        )
    label = f"map of features: {name}"
    return section(
        f"Map of features: {name}", note + image(_drawn(features[shown], values, scores), label)
    )


def layout(features: Floats) -> Floats:
    """Where every clip lies on the map, [n, D] to [n, 2]; the same for the same features."""
    import umap  # compiles for seconds, which only maps need
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import normalize

    number = min(_NUM_COMPONENTS, *features.shape)
    components = PCA(number, svd_solver="full").fit_transform(normalize(features))
    mapper = umap.UMAP(
        n_neighbors=min(_NUM_NEIGHBOURS, len(features) - 1),
        min_dist=_MIN_DISTANCE,
        metric="cosine",
        random_state=_SEED,
        n_jobs=1,  # in parallel the result depends on who comes first
    )
    return np.asarray(mapper.fit_transform(components), np.float64)


def silhouette(features: Floats, classes: NDArray[np.str_]) -> float | None:
    """The mean silhouette of classes (Rousseeuw 1987) by cosine distance in the features [n, D].

    Clips of unknown class don't count; None if those left are not of at least two classes, or are
    all of different ones.
    """
    from sklearn.metrics import silhouette_score  # two seconds, of which training needs nothing

    known = classes != UNKNOWN
    if not 2 <= len(np.unique(classes[known])) < known.sum():
        return None
    return float(silhouette_score(features[known], classes[known], metric="cosine"))


def _drawn(
    features: Floats,
    columns: Mapping[str, NDArray[Any]],
    scores: Mapping[str, float | None],
) -> Figure:
    """The map, a panel per column, with the silhouettes that there are."""
    places = layout(features)
    figure, panel_of = panels(len(columns), 4.6)
    for (column, cells), (axes,) in zip(columns.items(), panel_of, strict=True):
        axes.set(xticks=[], yticks=[])
        score = scores.get(column)
        name_panel(axes, column if score is None else f"{column} (silhouette {score:.2f})")
        draw = _draw_numbers if cells.dtype.kind == "f" else _draw_classes
        draw(axes, places, cells)
    return figure


def _typed(cells: Sequence[Any], shown: NDArray[np.int64]) -> NDArray[Any]:
    """The shown cells of a column: float64 with NaN, or text with `UNKNOWN`."""
    picked = [cells[row] for row in shown]
    given = [cell for cell in picked if cell is not None]
    numbers = all(
        isinstance(cell, int | float | np.number) and not isinstance(cell, bool) for cell in given
    )
    if given and numbers:
        return np.array([np.nan if cell is None else cell for cell in picked], np.float64)
    return np.array([UNKNOWN if cell is None else str(cell) for cell in picked], str)


def _draw_numbers(axes: Axes, places: Floats, values: Floats) -> None:
    known = np.isfinite(values)
    _dots(axes, places[~known], Look(GREY, ".", ()), len(values))
    dots = _dots(axes, places[known], Look(GREY, "o", ()), len(values))
    dots.set_array(values[known])
    figure = axes.get_figure()
    assert figure is not None
    figure.colorbar(dots, ax=axes, orientation="horizontal", shrink=0.8, pad=0.02, aspect=30)


def _draw_classes(axes: Axes, places: Floats, classes: NDArray[np.str_]) -> None:
    """The commonest classes in colours of their own, the others and the unknown ones in grey."""
    names, counts = np.unique(classes[classes != UNKNOWN], return_counts=True)
    common = sorted(names[np.argsort(-counts, kind="stable")][:_MAX_CLASSES].tolist())
    drawn = {name: (classes == name, look) for name, look in looks(common).items()}
    rest = ~np.isin(classes, common)
    if rest.any():
        drawn = {"other or unknown": (rest, Look(GREY, ".", ()))} | drawn
    for layer in np.array_split(np.arange(len(classes)), _NUM_LAYERS):  # none covers all others
        for here, look in drawn.values():
            _dots(axes, places[layer][here[layer]], look, len(classes))
    for name, (here, look) in drawn.items():
        _dots(axes, np.empty((0, 2)), look, len(classes)).set_label(f"{name} ({here.sum()})")
    axes.legend(
        fontsize=8,
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        frameon=False,
        ncols=3,
        handletextpad=0.1,
        columnspacing=0.8,
    )


def _dots(axes: Axes, places: Floats, look: Look, number: int) -> PathCollection:
    """Places [m, 2] in one look; many dots are small ones."""
    return axes.scatter(
        places[:, 0],
        places[:, 1],
        s=float(np.clip(12_000 / number, 3, 24)),
        color=look.colour,
        marker=look.marker,
        alpha=0.8,
        linewidths=0,
    )
