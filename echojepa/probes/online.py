"""A small probe while pretraining goes on: is the target's representation getting better?

A fixed set of labelled clips is decoded once; every so often all ranks encode their share with the
frozen target, and a ridge or logistic probe is fitted. It is a thermometer, not an evaluation: few
clips, one seed, scored on the validation split (test is never touched).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from echojepa.config import Strict
from echojepa.data.block import DataConfig
from echojepa.data.problem import ClipProblem, guarded
from echojepa.encoders.frozen import TokenFeatures
from echojepa.errors import ManifestError, first_line
from echojepa.models.attention import Grid
from echojepa.probes.features import FeatureConfig, load_clips, pool
from echojepa.probes.metrics import classification_metrics, regression_metrics
from echojepa.probes.tasks import Task, pick_labelled


class OnlineProbeConfig(Strict):
    """Which clips, and what to predict from them."""

    task: Task
    """What to predict."""
    num_train: int = Field(256, gt=1)
    """Labelled training clips used at most."""
    num_val: int = Field(128, gt=1)
    """Labelled validation clips used at most."""
    batch: int = Field(8, gt=0)
    """Clips per forward pass and rank."""
    features: FeatureConfig = FeatureConfig()
    """How a video becomes one vector of features, as in evaluate."""


Encode = Callable[[torch.Tensor], torch.Tensor]
"""uint8 clips [B, T, H, W, 3] to token features [B, N, D]; every rank calls it equally often."""
Gather = Callable[[NDArray[np.float32]], list[NDArray[np.float32]]]
"""Every rank's array, in rank order."""


class Reading(NamedTuple):
    """What the probe found."""

    scores: dict[str, float]
    """By name; none if it could not be fitted."""
    problem: str | None = None
    """Why it could not."""


class Ranks(Protocol):
    """Which of how many processes this is."""

    @property
    def rank(self) -> int:
        """From 0."""

    @property
    def size(self) -> int:
        """Number of processes."""


class OnlineProbe:
    """Called by the watcher, on every rank.

    What can be known at the start is an error then. Later the probe never ends a run that trains:
    its reading says why there is no score.
    """

    def __init__(
        self,
        config: OnlineProbeConfig,
        data: DataConfig,
        grid: Grid,
        world: Ranks,
    ) -> None:
        """Decode this rank's share of the clips.

        Args:
            data: of the run: its manifest, clips, and how files are read.
            grid: token grid of a clip.
            world: which of how many ranks this is.

        Raises:
            ManifestError: the label column is missing or of the wrong type, a split has no
                labelled clip, or the clips picked from train are of a single class.
        """
        self._config = config
        self._grid = grid
        numbers = {"train": config.num_train, "val": config.num_val}
        train, val = pick_labelled(data.manifest, config.task, numbers, seed=0).values()
        self._is_train = np.arange(len(train) + len(val)) < len(train)
        self._clip_ids = np.array([row["clip_id"] for row in train + val], str)
        dtype = float if config.task.kind == "regression" else str
        self._labels = np.array([row[config.task.label] for row in train + val], dtype)
        self._readable = np.ones(len(self._labels), bool)
        lacking = self._lacking()
        if lacking:
            raise ManifestError(
                f"the online probe {config.task.name!r} has {lacking}",
                "Label clips in train and val, or drop the probe.",
                data.manifest,
            )
        mine = (train + val)[world.rank :: world.size]
        self._per_rank = -(-len(self._labels) // world.size)
        clip = data.clip
        shape = (config.features.windows, clip.num_frames, clip.size, clip.size, 3)
        self._clips = np.zeros((self._per_rank, *shape), np.uint8)
        self.problems: list[ClipProblem] = []
        """Of this rank's clips, those that could not be read."""
        for target, row in zip(self._clips, mine, strict=False):
            frames, problem = guarded(partial(load_clips, row, clip, config.features, data.read))
            if problem is not None:
                self.problems.append(ClipProblem(row["clip_id"], problem))
            if frames is not None:
                target[:] = frames

    def leave_out(self, clip_ids: list[str]) -> None:
        """Do without clips that could not be read; every rank is told of the same ones."""
        self._readable &= ~np.isin(self._clip_ids, clip_ids)

    def _lacking(self) -> str | None:
        """What is missing to fit and to judge."""
        for name, part in (("train", self._is_train), ("val", ~self._is_train)):
            if not (self._readable & part).any():
                return f"no readable labelled clip in split {name!r}"
        classes = np.unique(self._labels[self._readable & self._is_train])
        if self._config.task.kind == "classification" and len(classes) < 2:
            return f"the single class {classes[0]!s} among its clips of split 'train'"
        return None

    def __call__(self, encode: Encode, gather: Gather) -> Reading:
        """Encode, fit and score; a collective call."""
        clips = self._clips.reshape(-1, *self._clips.shape[2:])
        parts = []
        for start in range(0, len(clips), self._config.batch):
            pixels = torch.from_numpy(clips[start : start + self._config.batch])
            with torch.no_grad():
                tokens = encode(pixels)
            features = pool(TokenFeatures(tokens, self._grid), self._config.features.parts)
            parts.append(features.cpu().numpy())
        by_clip = np.concatenate(parts)
        by_video = by_clip.reshape(self._per_rank, self._config.features.windows, -1).mean(axis=1)
        gathered = gather(by_video)
        # Rank r encoded the clips r, r + n, r + 2 n, ...: interleaved, they are in order again.
        together = np.stack(gathered, axis=1).reshape(-1, gathered[0].shape[1])
        return self._read(together[: len(self._labels)].astype(np.float64))

    def _read(self, features: NDArray[np.float64]) -> Reading:
        lacking = self._lacking()
        if lacking:
            return Reading({}, f"there is {lacking}")
        broken = int((self._readable & ~np.isfinite(features).all(axis=1)).sum())
        if broken:
            return Reading({}, f"features of {broken} clips are not finite")
        try:
            return Reading(self._fit(features))
        except (ValueError, np.linalg.LinAlgError) as error:  # the solver's
            return Reading({}, f"the fit failed: {first_line(error)}")

    def _fit(self, features: NDArray[np.float64]) -> dict[str, float]:
        from sklearn.linear_model import LogisticRegression, RidgeCV
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        task = self._config.task
        train, val = self._is_train & self._readable, ~self._is_train & self._readable
        if task.kind == "regression":
            model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 5, 13)))
            model.fit(features[train], self._labels[train])
            scores = regression_metrics(self._labels[val], model.predict(features[val]))
        else:
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
            model.fit(features[train], self._labels[train])
            probabilities = model.predict_proba(features[val])
            scores = classification_metrics(self._labels[val], probabilities, model.classes_)
        return {f"probe/{task.name}_{name}": value for name, value in scores.items()}
