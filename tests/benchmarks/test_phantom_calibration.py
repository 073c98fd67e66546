"""How hard the benchmark phantom is, and that it gives nothing away but by moving.

pytest -m soak tests/benchmarks/test_phantom_calibration.py -s

Supervised networks and random encoders only: no pretrained encoder has part in it. Writes the data
set of configs/data/phantom.yaml into the folder $PHANTOM, or a temporary one: hours on two cores.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import cloudpickle
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support.benchmarks.readers import Shown, read, train_reader
from support.paths import ROOT

from echojepa.config import load
from echojepa.data.decode.frames import ReadConfig, open_video
from echojepa.data.manifest.file import read_manifest
from echojepa.data.sampling import ClipConfig, crop_resize, square_box
from echojepa.encoders.ours import UntrainedSource
from echojepa.launch.phantom import launch
from echojepa.models.encoder import EncoderConfig
from echojepa.on_ray.connect import ClusterConfig, connected
from echojepa.on_ray.tasks import map_on_ray
from echojepa.phantom import PhantomConfig
from echojepa.phantom.view.views import VIEWS
from echojepa.probes.features import FeatureConfig, load_view, pool

pytestmark = [pytest.mark.soak, pytest.mark.timeout(6 * 3600)]
CONFIG = ROOT / "configs" / "data" / "phantom.yaml"
CLIP = ClipConfig(num_frames=16, fps=12.0, size=64)
STILL_SIZE = 112
LV_VIEWS = ("A4C", "A2C", "A3C", "PLAX", "PSAX-MV", "PSAX-PM")
LABEL_SHARE = 0.01


@dataclass(frozen=True)
class Data:
    """Every clip of the phantom, small."""

    rows: dict[str, np.ndarray]
    """Columns of the manifest, and `num_bytes` of the file, [N] each."""
    clips: np.ndarray
    """uint8 [N, 16, 64, 64]."""
    stills: np.ndarray
    """One frame of each at any time of the beat, uint8 [N, 1, 112, 112]."""

    def where(self, split: str, views: tuple[str, ...] = tuple(VIEWS)) -> np.ndarray:
        """Positions of clips."""
        return np.flatnonzero(
            (self.rows["split"] == split) & np.isin(self.rows["view"], list(views))
        )


def decoded(folder: Path, row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, int]:
    """A clip, a still and the size of the file."""
    uri = str(folder / row["uri"])
    clip = load_view({**row, "uri": uri}, CLIP, ReadConfig())[..., 1]
    box = square_box(row["height"], row["width"])
    any_frame = int(row["clip_id"], 16) % row["num_frames"]
    still = open_video(uri).frames([any_frame], row["num_frames"])
    return clip, crop_resize(still, box, STILL_SIZE)[..., 1], Path(uri).stat().st_size


@pytest.fixture(scope="module")
def data() -> Data:
    folder = Path(os.environ.get("PHANTOM") or tempfile.mkdtemp())
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with connected(ClusterConfig()):
        manifest = launch(load(CONFIG, [], PhantomConfig), folder, ClusterConfig())
        table = read_manifest(manifest)
        seen = list(map_on_ray(partial(decoded, folder), table.to_pylist()))
    clips, stills, num_bytes = (np.stack(part) for part in zip(*seen, strict=True))
    rows = {name: np.array(table[name].to_pylist()) for name in table.column_names}
    return Data({**rows, "num_bytes": num_bytes}, clips, stills)


def r2(said: np.ndarray, truth: np.ndarray) -> float:
    return float(1.0 - np.square(said - truth).sum() / np.square(truth - truth.mean()).sum())


def read_ejection_fraction(
    data: Data, pictures: np.ndarray, views: tuple[str, ...], num_epochs: int
) -> tuple[np.ndarray, np.ndarray]:
    """What a supervised reader says of the test clips, percent [n], and their positions [n]."""
    train, test = data.where("train", views), data.where("test", views)
    labels = data.rows["lvef"]
    mean, deviation = labels[train].mean(), labels[train].std()
    shown = Shown(pictures[train], ((labels[train] - mean) / deviation).astype(np.float32))
    reader = train_reader(shown, None, num_epochs)
    return read(reader, pictures[test])[:, 0] * deviation + mean, test


def test_supervised_training_reads_the_ejection_fraction_off_moving_pictures(data: Data) -> None:
    said, test = read_ejection_fraction(data, data.clips, LV_VIEWS, 40)
    truth = data.rows["lvef"][test]
    mean = data.rows["lvef"][data.where("train", LV_VIEWS)].mean()
    error, trivial = np.abs(said - truth), np.abs(mean - truth)
    print(f"\nsupervised: MAE {error.mean():.2f}, predict-mean {trivial.mean():.2f}, "
          f"R2 {r2(said, truth):.2f}, {len(test)} test clips")  # fmt: skip
    for name in ("view", "vendor", "population", "rhythm"):
        for value in np.unique(data.rows[name][test]):
            of = data.rows[name][test] == value
            print(f"  {name} {value}: MAE {error[of].mean():.2f} ({of.sum()} clips)")
    assert error.mean() <= 0.5 * trivial.mean()


def test_one_frame_does_not_show_the_ejection_fraction(data: Data) -> None:
    """The same network reads the view off the same frames, so it is not too weak to read."""
    said, test = read_ejection_fraction(data, data.stills, LV_VIEWS, 30)
    found = r2(said, data.rows["lvef"][test])
    train, answers = data.where("train", LV_VIEWS), view_numbers(data)
    reader = train_reader(Shown(data.stills[train], answers[train]), len(VIEWS), 30)
    right = (read(reader, data.stills[test]).argmax(axis=1) == answers[test]).mean()
    print(f"\none supervised frame: R2 {found:.2f}; of the view it tells {right:.2f}")
    assert found <= 0.3
    assert right >= 0.7


def view_numbers(data: Data) -> np.ndarray:
    """Of every clip, its view's position in `VIEWS`."""
    return np.array([list(VIEWS).index(view) for view in data.rows["view"]])


def test_what_surrounds_the_picture_does_not_show_the_ejection_fraction(data: Data) -> None:
    names = ("native_fps", "num_frames", "height", "width", "num_bytes", "heart_rate")
    features = np.stack([data.rows[name] for name in names], axis=1).astype(float)
    train, test = data.where("train"), data.where("test")
    trees = HistGradientBoostingRegressor(max_iter=100, learning_rate=0.05, max_leaf_nodes=8)
    said = trees.fit(features[train], data.rows["lvef"][train]).predict(features[test])
    found = r2(said, data.rows["lvef"][test])
    print(f"\nframe rate, length, sizes, bytes and heart rate: R2 {found:.3f}")
    assert found <= 0.05


def few_labels(data: Data, seed: int) -> np.ndarray:
    """One per cent of the training clips, as many of each view as of any other."""
    rng = np.random.default_rng(seed)
    train = data.where("train")
    per_view = max(round(LABEL_SHARE * len(train) / len(VIEWS)), 1)
    of_view = [train[data.rows["view"][train] == view] for view in VIEWS]
    return np.concatenate([rng.choice(clips, per_view, replace=False) for clips in of_view])


def test_views_from_one_per_cent_of_the_labels(data: Data) -> None:
    answers, test = view_numbers(data), data.where("test")
    config = EncoderConfig(width=96, depth=3, num_heads=4, patch_size=8)
    encoder = UntrainedSource(encoder=config, clip=CLIP).load()
    features = np.concatenate(
        [
            pool(
                encoder.encode(np.repeat(data.clips[i : i + 32, ..., None], 3, axis=4)),
                FeatureConfig().parts,
            ).numpy()
            for i in range(0, len(data.clips), 32)
        ]
    )
    scores: dict[str, list[float]] = {"supervised": [], "random encoder, linear probe": []}
    for seed in range(3):
        few = few_labels(data, seed)
        reader = train_reader(Shown(data.clips[few], answers[few]), len(VIEWS), 150, seed)
        said = read(reader, data.clips[test]).argmax(axis=1)
        scores["supervised"].append(float((said == answers[test]).mean()))
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
        probe.fit(features[few], answers[few])
        score = float(probe.score(features[test], answers[test]))
        scores["random encoder, linear probe"].append(score)
    print()
    for name, found in scores.items():
        print(f"{name}, {len(few)} labels: accuracy {np.mean(found):.3f} +- {np.std(found):.3f}")
    assert 0.3 <= np.mean(scores["supervised"]) <= 0.8
