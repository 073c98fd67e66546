"""What is true of a phantom's clips, shown to encoders in place of their pixels.

What a perfect reader would measure in a frame is one number. Its bytes (float32) lie where the
pixels of a frame of 2 x 2 would, and encoders written for that turn them into features. Everything
but decoder and encoder is what it always is, and no video is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from echojepa.data.manifest.splits import assign_splits
from echojepa.data.sampling import ClipConfig, windows_of
from echojepa.encoders.custom import CustomSource
from echojepa.encoders.frozen import PooledFeatures, TokenFeatures
from echojepa.models.attention import Grid
from echojepa.phantom import PhantomConfig
from echojepa.phantom.anatomy.heart import Anatomy
from echojepa.phantom.anatomy.populations import POPULATIONS
from echojepa.phantom.clip import draw_setup, patient_number
from echojepa.phantom.files.clip_file import TABLE_SCHEMA
from echojepa.phantom.files.layouts import pseudonym
from echojepa.phantom.view.plane import Plane
from echojepa.phantom.view.views import draw_plane
from echojepa.probes.extraction import Columns, Extractor, Loader

_SIDE, _BUMPS, _NUMBER = 2, 32, np.float32


class Filmed:
    """A clip of a phantom before the first pulse: its heart, its beats and its image plane."""

    def __init__(self, config: PhantomConfig, study: int, view: str) -> None:
        self.view = view
        self.setup = draw_setup(config, study, view)
        self.study = study

    @cached_property
    def plane(self) -> Plane:
        """The one that `render_clip` draws."""
        patient = self.setup.patient
        chest = POPULATIONS[patient.population].chest
        return draw_plane(self.view, patient.heart, chest, self.setup.rng)

    def anatomy(self, frame: int) -> Anatomy:
        """The heart in a frame."""
        return self.setup.patient.heart.at(self.setup.rhythm.phase(self.setup.seconds[frame]))


Measure = Callable[[Filmed, int], float]


def log_volume(clip: Filmed, frame: int) -> float:
    """Natural logarithm of the left ventricle's volume in ml."""
    return float(np.log(clip.anatomy(frame).chambers["lv"].volume_ml()))


def half_the_pressure(clip: Filmed, frame: int) -> float:
    """From 0 to 1: in short axis how round the septum is, in other views how wide the right
    ventricle is. Of the right ventricle's pressure each tells half, and in opposite directions."""
    heart = clip.setup.patient.heart
    if clip.view.startswith("PSAX"):
        return 1.0 - heart.septal_flattening / 0.4
    return heart.rv_dilation


class Truth:
    """An `Executor` that shows encoders what is true of the clips of a phantom."""

    def __init__(self, config: PhantomConfig, measure: Measure, clip: ClipConfig) -> None:
        """Draw all clips; none is rendered.

        Args:
            measure: what is seen of a frame.
            clip: that the encoders want: one window in the middle of every video.
        """
        self._config, self._measure, self._clip = config, measure, clip
        self._filmed = {
            pseudonym(config, "clip", study, view, 0): Filmed(config, study, view)
            for study in range(config.num_studies)
            for view in config.views
        }

    def map(self, function: Callable[[Any], Any], inputs: Iterable[Any]) -> Iterator[Any]:
        """Results in order."""
        return map(function, inputs)

    def extract(
        self, blocks: Sequence[pa.Table], load: Loader, build: Callable[[], Extractor]
    ) -> Iterator[Columns]:
        """Block by block."""
        extractor = build()
        for block in blocks:
            clip_ids = np.array(block["clip_id"].to_pylist(), dtype=object)
            readable = np.full(len(block), "", dtype=object)
            clips = as_pixels(self.measures(block.to_pylist()))[:, None]
            yield extractor({"clip_id": clip_ids, "problem": readable, "clips": clips})

    def measures(self, rows: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        """Of the frames of the windows of clips, [n, T]."""
        return np.stack([self._measures_of(row) for row in rows])

    def _measures_of(self, row: Mapping[str, Any]) -> NDArray[np.float64]:
        (window,) = windows_of(row, self._clip, 1)
        nearest = np.rint(window.seconds * row["native_fps"]).astype(int)
        frames, place = np.unique(np.minimum(nearest, row["num_frames"] - 1), return_inverse=True)
        filmed = self._filmed[row["clip_id"]]
        return np.array([self._measure(filmed, frame) for frame in frames.tolist()])[place]

    def manifest(self) -> pa.Table:
        """That of the phantom, whose videos need not be there."""
        rows = [self._row(clip_id, filmed) for clip_id, filmed in self._filmed.items()]
        table = pa.Table.from_pylist(rows, schema=TABLE_SCHEMA)
        config = self._config
        split = assign_splits(table.to_batches(), config.split_fractions, config.seed)
        return pa.Table.from_batches(split)

    def _row(self, clip_id: str, filmed: Filmed) -> dict[str, Any]:
        config, patient = self._config, filmed.setup.patient
        fps = filmed.setup.knobs.native_fps
        return {
            "clip_id": clip_id,
            "patient_id": pseudonym(config, "patient", patient_number(config, filmed.study)[0]),
            "study_id": pseudonym(config, "study", filmed.study),
            "uri": f"{clip_id}.mp4",
            "num_frames": config.num_frames,
            "native_fps": fps,
            "duration_seconds": config.num_frames / fps,
            "height": config.size,
            "width": config.size,
            "view": filmed.view,
            "doppler": "none",
            "rhythm": patient.rhythm,
            **patient.heart.labels,
        }


def as_pixels(measures: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Measures of frames [n, T] as the bytes of clips [n, T, 2, 2, 3]."""
    clips = np.zeros((*measures.shape, _SIDE, _SIDE, 3), np.uint8)
    clips.reshape(*measures.shape, -1).view(_NUMBER)[..., 0] = measures
    return clips


class Reader:
    """A frozen encoder of clips of `Truth`: a token for every frame."""

    def __init__(self, num_frames: int, fps: float, low: float, high: float) -> None:
        """Measures from `low` to `high` are told apart."""
        self.clip = ClipConfig(num_frames=num_frames, fps=fps, size=_SIDE)
        self._centres = np.linspace(low, high, _BUMPS)

    def measures(self, clips: NDArray[np.uint8]) -> NDArray[np.float64]:
        """What clips [B, T, 2, 2, 3] hold, [B, T]."""
        flat = np.ascontiguousarray(clips).reshape(*clips.shape[:2], -1)
        return flat.view(_NUMBER)[..., 0].astype(np.float64)

    def encode(self, clips: NDArray[np.uint8]) -> TokenFeatures | PooledFeatures:
        """How near each frame's measure is to each of 32 values, tokens [B, T, 32]."""
        width = 4.0 * (self._centres[1] - self._centres[0])
        away = (self.measures(clips)[..., None] - self._centres) / width
        tokens = torch.from_numpy(np.exp(-0.5 * away**2)).float()
        return TokenFeatures(tokens, Grid(tokens.shape[1], 1, 1))


class Extremes(Reader):
    """Of whole clips: the least and the largest measure, and what they are logarithms of."""

    def encode(self, clips: NDArray[np.uint8]) -> PooledFeatures:
        """Least, most, exp(least), exp(most), exp(least - most), [B, 5]."""
        measures = self.measures(clips)
        least, most = measures.min(axis=1), measures.max(axis=1)
        found = np.stack([least, most, np.exp(least), np.exp(most), np.exp(least - most)], axis=1)
        return PooledFeatures(torch.from_numpy(found))


def source(kind: type[Reader], clip: ClipConfig, low: float, high: float) -> CustomSource:
    """Of an encoder of clips of `Truth` with so many frames at this rate; see `Reader`."""
    settings = {"num_frames": clip.num_frames, "fps": clip.fps, "low": low, "high": high}
    return CustomSource(factory=f"{__name__}:{kind.__name__}", settings=settings)
