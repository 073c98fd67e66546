"""The online probe: the same score on any number of ranks, from train and val alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray

from echojepa.data.block import DataConfig
from echojepa.data.manifest.file import read_manifest, with_absolute_uris, write_manifest
from echojepa.data.sampling import ClipConfig
from echojepa.errors import ManifestError
from echojepa.models.attention import Grid
from echojepa.probes.online import OnlineProbe, OnlineProbeConfig
from echojepa.probes.tasks import Task, pick
from echojepa.train.collectives import World

CLIP = ClipConfig(num_frames=4, fps=10.0, size=16)
GRID = Grid(2, 2, 2)
EF = Task(name="ef", label="lvef", kind="regression")
VIEW = Task(name="view", label="view", kind="classification")
ALONE = World(0, 1)
Arrays = list[NDArray[np.float32]]


class CountingEncoder:
    """Random features of tubelets; every clip's are its own, whatever else is in the batch."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self._weight = torch.randn(2 * 8 * 8 * 3, 12, generator=torch.Generator().manual_seed(0))

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(pixels))
        x = pixels.double().reshape(-1, GRID.frames, 2, 2, 8, 2, 8, 3) / 255
        tubelets = x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(len(pixels), GRID.frames * 4, -1)
        return torch.tanh(tubelets @ self._weight.double())


def config(task: Task, **settings: int) -> OnlineProbeConfig:
    """A probe of at most 7 + 4 clips, in batches of 2."""
    return OnlineProbeConfig(task=task, **{"num_train": 7, "num_val": 4, "batch": 2, **settings})


def open_probe(manifest: Path, task: Task, world: World = ALONE, **settings: int) -> OnlineProbe:
    """The probe of one rank."""
    data = DataConfig(manifest=str(manifest), clip=CLIP)
    return OnlineProbe(config(task, **settings), data, GRID, world)


def alone(array: NDArray[np.float32]) -> Arrays:
    """What a group of one gathers."""
    return [array]


@pytest.mark.parametrize("task", [EF, VIEW], ids=lambda task: task.name)
@pytest.mark.parametrize("num_ranks", [2, 3])
def test_any_number_of_ranks_gives_the_same_scores(
    phantom_manifest: Path, task: Task, num_ranks: int
) -> None:
    expected = open_probe(phantom_manifest, task)(CountingEncoder(), alone).scores
    probes = [
        open_probe(phantom_manifest, task, World(rank, num_ranks)) for rank in range(num_ranks)
    ]
    encoders = [CountingEncoder() for _ in probes]
    arrays: Arrays = []

    def collect(array: NDArray[np.float32]) -> Arrays:
        arrays.append(array)
        return [array] * num_ranks

    for probe, encoder in zip(probes, encoders, strict=True):
        probe(encoder, collect)
    assert len({array.shape for array in arrays}) == 1
    assert len({tuple(encoder.sizes) for encoder in encoders}) == 1  # encoding is collective
    assert sum(len(array) for array in arrays) == {2: 12, 3: 12}[num_ranks]
    for probe in probes:
        assert probe(CountingEncoder(), lambda _: arrays).scores == pytest.approx(
            expected, rel=1e-6
        )


def test_metrics_are_named_by_the_task(phantom_manifest: Path) -> None:
    regression = open_probe(phantom_manifest, EF)(CountingEncoder(), alone).scores
    assert set(regression) >= {f"probe/ef_{name}" for name in ("mae", "rmse", "r2", "pearson")}
    classes = open_probe(phantom_manifest, VIEW)(CountingEncoder(), alone).scores
    assert set(classes) >= {
        f"probe/view_{name}" for name in ("accuracy", "balanced_accuracy", "auroc")
    }
    assert all(np.isfinite(value) for value in [*regression.values(), *classes.values()])


def test_features_that_hold_the_label_score_high_and_constant_ones_do_not(
    phantom_manifest: Path,
) -> None:
    """Two views look different; features without pixels know nothing."""
    probe = open_probe(phantom_manifest, VIEW, num_train=12, num_val=6)
    assert probe(CountingEncoder(), alone).scores["probe/view_auroc"] > 0.8
    blind = probe(lambda pixels: torch.ones(len(pixels), 8, 5), alone).scores
    assert blind["probe/view_auroc"] == pytest.approx(0.5)


def test_scores_repeat(phantom_manifest: Path) -> None:
    probe = open_probe(phantom_manifest, EF)
    first = probe(CountingEncoder(), alone)
    assert probe(CountingEncoder(), alone) == first
    assert open_probe(phantom_manifest, EF)(CountingEncoder(), alone) == first


def test_no_more_clips_than_asked_for_are_encoded(phantom_manifest: Path) -> None:
    encoder = CountingEncoder()
    open_probe(phantom_manifest, EF, num_train=4, num_val=3)(encoder, alone)
    assert sum(encoder.sizes) == 2 * 7  # two windows each
    everything = CountingEncoder()
    open_probe(phantom_manifest, EF, num_train=500, num_val=500)(everything, alone)
    assert sum(everything.sizes) == 2 * (12 + 6)


def test_the_test_split_is_never_opened(phantom_manifest: Path, tmp_path: Path) -> None:
    table = with_absolute_uris(read_manifest(phantom_manifest), phantom_manifest.parent)
    uris = [
        "gone.mp4" if split == "test" else uri
        for split, uri in zip(table["split"].to_pylist(), table["uri"].to_pylist(), strict=True)
    ]
    table = table.set_column(table.column_names.index("uri"), "uri", pa.array(uris))
    manifest = write_manifest(table, tmp_path / "manifest.parquet")
    settings = {"num_train": 500, "num_val": 500}
    expected = open_probe(phantom_manifest, EF, **settings)(CountingEncoder(), alone)
    assert open_probe(manifest, EF, **settings)(CountingEncoder(), alone) == expected


def test_a_missing_label_is_an_error_at_the_start(phantom_manifest: Path) -> None:
    with pytest.raises(ManifestError, match="needs the column 'gls'"):
        open_probe(phantom_manifest, EF.model_copy(update={"label": "gls"}))
    with pytest.raises(ManifestError, match="no readable labelled clip in split 'train'"):
        open_probe(phantom_manifest, EF.model_copy(update={"views": ("PLAX",)}))
    with pytest.raises(ManifestError, match="'view' holds string"):
        open_probe(phantom_manifest, EF.model_copy(update={"label": "view"}))


def test_a_single_class_is_an_error_at_the_start(phantom_manifest: Path) -> None:
    """Found at the first probe, it would end a run that has trained for hours."""
    with pytest.raises(ManifestError, match="class"):
        open_probe(phantom_manifest, VIEW.model_copy(update={"views": ("A4C",)}))


def test_a_class_that_the_picked_clips_lack_is_an_error_at_the_start(
    phantom_manifest: Path, tmp_path: Path
) -> None:
    """Train has two classes, but the clips that are picked of it are all of one."""
    table = with_absolute_uris(read_manifest(phantom_manifest), phantom_manifest.parent)
    train = [row["clip_id"] for row in table.to_pylist() if row["split"] == "train"]
    rare = pick(train, len(train), seed=0)[-1]
    shunt = ["yes" if clip_id == rare else "no" for clip_id in table["clip_id"].to_pylist()]
    manifest = write_manifest(table.append_column("shunt", [shunt]), tmp_path / "m.parquet")
    task = Task(name="shunt", label="shunt", kind="classification")
    with pytest.raises(ManifestError, match="the single class no among its clips of split 'train'"):
        open_probe(manifest, task, num_train=len(train) - 1)
    assert open_probe(manifest, task, num_train=len(train))


def test_what_happens_later_is_a_reason_and_no_score(phantom_manifest: Path) -> None:
    """A run that trains is worth more than its thermometer."""

    def broken(pixels: torch.Tensor) -> torch.Tensor:
        return torch.full((len(pixels), 8, 5), float("nan"))

    for task in (EF, VIEW):
        probe = open_probe(phantom_manifest, task)
        assert probe(broken, alone) == ({}, "features of 11 clips are not finite")
        probe.leave_out(read_manifest(phantom_manifest)["clip_id"].to_pylist())
        scores, problem = probe(CountingEncoder(), alone)
        assert scores == {} and problem == "there is no readable labelled clip in split 'train'"


def test_the_last_clips_of_a_class_cannot_be_read(phantom_manifest: Path) -> None:
    probe = open_probe(phantom_manifest, VIEW)
    rows = read_manifest(phantom_manifest).to_pylist()
    probe.leave_out([row["clip_id"] for row in rows if row["view"] == "A4C"])
    scores, problem = probe(CountingEncoder(), alone)
    assert scores == {}
    assert problem == "there is the single class PSAX-PM among its clips of split 'train'"
