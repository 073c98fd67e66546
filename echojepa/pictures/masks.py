"""A clip and its masks as one picture, for TensorBoard and reports."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from echojepa.config import validate
from echojepa.data.block import DataConfig
from echojepa.data.decode.frames import ReadConfig
from echojepa.models.attention import Grid
from echojepa.objectives.kinds import read_objective
from echojepa.objectives.objective import ModelConfig
from echojepa.probes.features import load_view
from echojepa.probes.tasks import pick, with_clips
from echojepa.randomness import Seeds

_NUM_PICTURES = 4
_NUM_FRAMES = 4
_TINT = np.array([36, 84, 148], np.float32)
_GAP = 2


def hidden_cells(hidden: NDArray[np.int64], grid: Grid) -> NDArray[np.bool_]:
    """Token indices [M] to cells [frames, rows, columns], True where hidden."""
    cells = np.zeros(grid.num_tokens, bool)
    cells[hidden] = True
    return cells.reshape(grid)


def mask_picture(
    clip: NDArray[np.uint8],
    hiddens: Sequence[NDArray[np.int64]],
    grid: Grid,
    redrawn: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """One row per generator under the clip itself; hidden tokens are tinted blue.

    Args:
        clip: [T, H, W, 3].
        hiddens: hidden token indices per generator, [M_g] each.
        redrawn: the clip as a network draws it, for one more row, [T, H, W, 3].

    Returns:
        [R (H + 2), F (W + 2), 3] with R rows and F frames, evenly spaced over the clip.
    """
    times = np.linspace(0, len(clip) - 1, min(_NUM_FRAMES, len(clip))).round().astype(int)
    rows = [list(clip[times])]
    for hidden in hiddens:
        cells = hidden_cells(hidden, grid)
        shown = []
        for time in times:
            mask = cells[time * grid.frames // len(clip)]
            scale = (clip.shape[1] // grid.rows, clip.shape[2] // grid.columns)
            mask = np.kron(mask, np.ones(scale, bool))[..., None]
            tinted = 0.25 * clip[time] + 0.75 * _TINT
            shown.append(np.where(mask, tinted, clip[time]).astype(np.uint8))
        rows.append(shown)
    if redrawn is not None:
        rows.append(list(redrawn[times]))
    pad = ((0, _GAP), (0, _GAP), (0, 0))
    return np.concatenate([np.concatenate([np.pad(f, pad) for f in row], axis=1) for row in rows])


def png_of(picture: NDArray[np.uint8]) -> bytes:
    """A picture [H, W, 3] as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "png")
    return buffer.getvalue()


def run_pictures(run: dict[str, Any], rows: pa.Table, read: ReadConfig) -> list[NDArray[np.uint8]]:
    """Some of the rows' clips with the masks that a run trained with, [H, W, 3] each.

    Args:
        run: the resolved config of the run.
    """
    data = validate(run["data"], DataConfig, "config.yaml")
    clip = data.clip
    model = validate(run["model"], ModelConfig, "config.yaml")
    objective = read_objective(run, "config.yaml").build(
        model, model.encoder.grid(clip.num_frames, clip.size, clip.size), Seeds(run["seed"]), data
    )
    picked = pick(rows["clip_id"].to_pylist(), _NUM_PICTURES, seed=1)
    by_id = {row["clip_id"]: row for row in with_clips(rows, picked).to_pylist()}
    hiddens = objective.hidden_tokens(np.arange(len(picked)))
    return [
        mask_picture(load_view(by_id[clip_id], clip, read), [h[i] for h in hiddens], objective.grid)
        for i, clip_id in enumerate(picked)
    ]
