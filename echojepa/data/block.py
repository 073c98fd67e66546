"""A block of clips: decoded in one process, proven in another to be the planned one."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echojepa.config import Strict, changeable
from echojepa.data.clip_table import ClipTable, open_clips
from echojepa.data.decode.frames import ReadConfig, open_video
from echojepa.data.decode.journal import CrashJournal
from echojepa.data.manifest.schema import ClipFilter
from echojepa.data.mixture import MixtureConfig
from echojepa.data.problem import guarded
from echojepa.data.sampling import ClipConfig, crop_resize, random_view
from echojepa.data.stream import PADDING
from echojepa.errors import BrokenInvariantError, ClipError
from echojepa.randomness import Seeds

Columns = dict[str, NDArray[Any]]
"""A block by column, M rows each: s, clip_id, weight, held_frames, problem, clip."""


class DataConfig(Strict):
    """Where clips come from and how they are cut."""

    manifest: str = changeable()
    """Path of `manifest.parquet`. It may move; its content is fixed by a fingerprint."""
    where: ClipFilter = ClipFilter()
    """Which rows of it."""
    mixture: MixtureConfig | None = None
    """Shares of its data sets; null takes every clip once per epoch."""
    clip: ClipConfig = ClipConfig()
    """Window, rate, size and crop of a clip."""
    max_bad_fraction: float = changeable(0.001, ge=0, le=1)
    """The run stops when more than this share of its samples could not be read."""
    read: ReadConfig = ReadConfig()
    """How their files are read."""
    num_decoders: int | None = changeable(None, gt=0)
    """Most decode actors at a time; null leaves it to Ray Data, up to the cluster's CPUs."""
    cpus_per_decoder: float = changeable(1.0, gt=0)
    """CPUs one decode actor reserves."""
    segment_steps: int | None = changeable(None, gt=1)
    """Steps per segment of the stream; null takes 60 or more, as many as last two minutes."""

    def clips(self) -> ClipTable:
        """Open the clip table; see `open_clips` for errors."""
        return open_clips(self.manifest, self.where, self.mixture)


class BlockDecoder:
    """Turns sample indices into a block of clips. One per process; opens the clip table once."""

    def __init__(self, data: DataConfig, seeds: Seeds, journal: Path | None = None) -> None:
        self._data = data
        self._seeds = seeds
        self._clips = data.clips()
        self._journal = CrashJournal(journal) if journal else None

    def __call__(self, s: NDArray[np.int64]) -> Columns:
        """Decode the samples s, [M]. Always M rows; a clip that cannot be read has weight 0."""
        clip = self._data.clip
        rows = np.where(s == PADDING, 0, self._clips.rows_of(np.maximum(s, 0), self._seeds))
        pixels = np.zeros((len(s), clip.num_frames, clip.size, clip.size, 3), np.uint8)
        weights = np.zeros(len(s), np.float32)
        held = np.zeros(len(s), np.int32)
        problems = np.array([""] * len(s), dtype=object)
        for i, (sample, row) in enumerate(zip(s.tolist(), rows.tolist(), strict=True)):
            if sample == PADDING:
                continue
            decoded, problem = guarded(partial(self._decode, sample, self._clips.row(row)))
            if problem is not None:
                problems[i] = problem.to_text()
            if decoded is not None:
                pixels[i], held[i] = decoded
                weights[i] = 1.0
        ids = np.array(self._clips.clip_ids(rows), dtype=object)
        ids[s == PADDING] = ""
        return {
            "s": s,
            "clip_id": ids,
            "weight": weights,
            "held_frames": held,
            "problem": problems,
            "clip": pixels,
        }

    def _decode(self, s: int, row: dict[str, Any]) -> tuple[NDArray[np.uint8], int]:
        """Pixels, and how many frames repeat the last one."""
        window, box = random_view(self._seeds, s, row, self._data.clip)
        if self._journal:
            self._journal.begin(s)
        try:
            video = open_video(row["uri"], self._data.read)
            frames = video.frames_at(window.seconds, row["num_frames"])
        finally:
            if self._journal:
                self._journal.end()
        if frames.shape[1:3] != (row["height"], row["width"]):
            found = f"{frames.shape[1]}x{frames.shape[2]}"
            raise ClipError(
                "decode", "size_mismatch", f"{found}, not {row['height']}x{row['width']}"
            )
        return crop_resize(frames, box, self._data.clip.size), window.held_frames


def check_block(
    block: Columns, expected: NDArray[np.int64], clips: ClipTable, seeds: Seeds
) -> None:
    """Prove that a received block is the planned one, before anything is computed from it.

    Raises:
        BrokenInvariantError: an index is missing, out of order, or carries another clip's pixels.
    """
    if not np.array_equal(block["s"], expected):
        raise BrokenInvariantError(f"expected samples {expected}, the stream gave {block['s']}")
    real = expected != PADDING
    planned = clips.clip_ids(clips.rows_of(expected[real], seeds))
    if planned != [str(i) for i in block["clip_id"][real]]:
        raise BrokenInvariantError(f"samples {expected[real]} carry other clips than planned")
