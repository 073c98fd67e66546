"""A saved probe says what the fitted one said, or is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.bench import CLIP, TINY, material_of
from support.toy import CLASS, NUMBER, SLOTS, fitted, toy

from echojepa.encoders.ours import OurSource
from echojepa.errors import CheckpointError, StorageError
from echojepa.models.encoder import VideoEncoder
from echojepa.models.weights import save_encoder
from echojepa.probes.examples import Material
from echojepa.probes.extraction import ExtractConfig
from echojepa.probes.features import FeatureConfig, TokenConfig
from echojepa.probes.fitting import Judged, judge
from echojepa.probes.grid.config import GridConfig
from echojepa.probes.probe_file import SavedProbe, save_probe
from echojepa.probes.tasks import Labels

GRID = GridConfig(head="attentive", num_heads=2, lr=(1e-2,), weight_decay=(0.1,), epochs=3)
EXTRACT = ExtractConfig(features=FeatureConfig(parts=("mean",)), tokens=TokenConfig(keep="grid"))
CASES: dict[str, dict[str, Any]] = {
    "numbers": {"task": NUMBER},
    "two classes": {"task": CLASS},
    "three classes": {"task": CLASS, "classes": 3},
    "slots": {"task": SLOTS},
    "grid of numbers": {"task": NUMBER, "config": GRID},
    "grid of classes": {"task": CLASS, "config": GRID, "classes": 3},
    "grid of slots": {"task": SLOTS, "config": GRID},
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> OurSource:
    """A real one: its weights are part of what a probe is."""
    folder = tmp_path_factory.mktemp("probe-file") / "encoder"
    write_encoder(folder)
    return OurSource(path=str(folder))


def write_encoder(folder: Path) -> None:
    """With the next weights of the random numbers."""
    save_encoder(folder, TINY, VideoEncoder(TINY).state_dict(), CLIP, "")


@cache
def probe_of(case: str) -> tuple[Judged, Material]:
    """A fitted one."""
    settings = dict(CASES[case])
    rows, vectors = toy(classes=settings.pop("classes", 2))
    return fitted(rows, vectors, **settings)


@pytest.mark.parametrize("case", CASES)
def test_a_saved_probe_predicts_the_same_bytes(
    tmp_path: Path, encoder: OurSource, case: str
) -> None:
    judged, material = probe_of(case)
    index = np.arange(material.num_samples)[::-1]
    said = judged.probe.predict(material, index)
    assert np.isfinite(said).all() and said.std() > 0
    folder = save_probe(tmp_path / "new" / "probe", judged, encoder, EXTRACT)
    again = SavedProbe.load(folder)
    assert again.probe.predict(material, index).tobytes() == said.tobytes()
    assert again.probe.classes.tolist() == judged.probe.classes.tolist()
    assert again.probe.chosen == judged.probe.chosen
    card = again.card
    assert (card.task, card.encoder, card.extract) == (judged.labels.task, encoder, EXTRACT)
    assert (card.name, card.probe) == (judged.name, judged.config)
    assert card.classes == tuple(judged.probe.classes.tolist())


def test_probes_are_written_one_over_the_other(tmp_path: Path, encoder: OurSource) -> None:
    for case in ("grid of numbers", "two classes", "grid of slots", "numbers"):
        judged, material = probe_of(case)
        save_probe(tmp_path, judged, encoder, EXTRACT)
        index = np.arange(10)
        again = SavedProbe.load(tmp_path).probe.predict(material, index)
        assert again.tobytes() == judged.probe.predict(material, index).tobytes(), case


def test_an_interrupted_save_leaves_no_card_beside_other_weights(
    tmp_path: Path, encoder: OurSource
) -> None:
    judged, _ = probe_of("numbers")
    save_probe(tmp_path, judged, encoder, EXTRACT)
    (tmp_path / "linear.safetensors").unlink()
    (tmp_path / "linear.safetensors").mkdir()
    with pytest.raises(StorageError, match="the probe cannot be written"):
        save_probe(tmp_path, judged, encoder, EXTRACT)
    with pytest.raises(CheckpointError, match="not a probe folder"):
        SavedProbe.load(tmp_path)


@pytest.mark.parametrize("change", ["other weights", "other clip", "no weights", "no folder"])
def test_another_encoder_under_the_same_path_is_refused(tmp_path: Path, change: str) -> None:
    folder = tmp_path / "encoder"
    write_encoder(folder)
    judged, _ = probe_of("numbers")
    probe = save_probe(tmp_path / "probe", judged, OurSource(path=str(folder)), ExtractConfig())
    SavedProbe.load(probe)
    if change == "other weights":
        write_encoder(folder)
    elif change == "other clip":
        config = folder / "config.json"
        config.write_text(config.read_text().replace('"fps": 10.0', '"fps": 20.0'))
    elif change == "no weights":
        (folder / "model.safetensors").unlink()
    else:
        folder.rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="weights are missing, or not those") as caught:
        SavedProbe.load(probe)
    assert caught.value.where == str(folder)


def edited(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    """A change of the card."""

    def edit(folder: Path) -> None:
        tree = json.loads((folder / "card.json").read_text())
        change(tree)
        (folder / "card.json").write_text(json.dumps(tree))

    return edit


def with_arrays(**changes: Callable[[torch.Tensor], torch.Tensor] | None) -> Callable[[Path], Any]:
    """A change of the weights; None takes an array out."""

    def edit(folder: Path) -> None:
        found = load_file(folder / "linear.safetensors")
        for name, change in changes.items():
            old = found.pop(name)
            if change is not None:
                found[name] = change(old).contiguous()
        save_file(found, folder / "linear.safetensors")

    return edit


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


BROKEN: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "no card": ("card.json", lambda f: (f / "card.json").unlink()),
    "card is cut": ("card.json", lambda f: cut(f / "card.json")),
    "card is a list": ("card.json", lambda f: (f / "card.json").write_text("[]")),
    "card is not text": ("card.json", lambda f: (f / "card.json").write_bytes(b"\xff\xfe")),
    "another format": ("card.json", edited(lambda tree: tree.update(format="other"))),
    "unknown setting": ("card.json", edited(lambda tree: tree["extract"].update(speed=1))),
    "unknown probe": ("card.json", edited(lambda tree: tree["probe"].update(kind="forest"))),
    "no digest": ("card.json", edited(lambda tree: tree.pop("weights_sha256"))),
    "other classes": ("linear.safetensors", edited(lambda tree: tree.update(classes=["a"] * 3))),
    "no weights": ("linear.safetensors", lambda f: (f / "linear.safetensors").unlink()),
    "weights are cut": ("linear.safetensors", lambda f: cut(f / "linear.safetensors")),
    "no bias": ("linear.safetensors", with_arrays(bias=None)),
    "a narrower scaler": ("linear.safetensors", with_arrays(mean=lambda t: t[:1])),
    "weights of another width": ("linear.safetensors", with_arrays(weight=lambda t: t[:, 1:])),
    "two strengths": ("linear.safetensors", with_arrays(strength=lambda t: t.repeat(2))),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_damaged_probe_is_refused_and_its_file_named(
    tmp_path: Path, encoder: OurSource, case: str
) -> None:
    judged, _ = probe_of("two classes")
    save_probe(tmp_path, judged, encoder, EXTRACT)
    file, damage = BROKEN[case]
    damage(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        SavedProbe.load(tmp_path)
    assert caught.value.where == str(tmp_path / file)


class Biased:
    """Says the truth plus an error of its own, which the features hold."""

    classes = np.empty(0)
    chosen = None

    def predict(self, material: Material, index: np.ndarray) -> np.ndarray:
        return material.vectors[index, 0]


def half_width(tmp_path: Path, encoder: OurSource, errors: np.ndarray, studies: list[str]) -> Any:
    """Of a probe with these errors on validation; test and train would say something else."""
    number = len(errors)
    splits = np.array(["val"] * number + ["train", "test"])
    owner = np.array([*studies, "tr", "te"])
    ids = [f"c{i}" for i in range(number + 2)]
    labels = Labels(NUMBER, ids, owner, owner, splits, np.full(number + 2, 50.0))
    said = 50 + np.array([*errors, 1000.0, 1000.0])
    material = material_of(labels, said[:, None])
    rows, vectors = toy()
    judged, _ = fitted(rows, vectors, NUMBER)
    probe: Any = Biased()
    result = judge("biased", probe, material, labels)
    save_probe(
        tmp_path, replace(judged, probe=probe, labels=labels, result=result), encoder, EXTRACT
    )
    return json.loads((tmp_path / "card.json").read_text())["half_width"]


@pytest.mark.parametrize("number", [18, 19, 20, 39, 40, 59, 200])
def test_the_interval_is_that_of_split_conformal_prediction(
    tmp_path: Path, encoder: OurSource, number: int
) -> None:
    """So many errors are at most it: 95% of one more than there are; with fewer than 19, none."""
    errors = np.random.default_rng(number).normal(0, 5, number)
    found = half_width(tmp_path, encoder, errors, [f"s{i}" for i in range(number)])
    if number < 19:
        assert found is None
        return
    inside = int((np.abs(errors) <= found + 1e-9).sum())
    assert inside == math.ceil(95 * (number + 1) / 100)
    assert np.isclose(np.abs(errors), found).any()


def test_the_interval_is_of_what_is_judged(tmp_path: Path, encoder: OurSource) -> None:
    """Errors of two clips of a study cancel out."""
    errors = np.tile([30.0, -28.0], 40)
    studies = [f"s{i // 2}" for i in range(80)]
    assert half_width(tmp_path, encoder, errors, studies) == pytest.approx(1.0)


def test_classes_have_no_interval(tmp_path: Path, encoder: OurSource) -> None:
    judged, _ = probe_of("three classes")
    save_probe(tmp_path, judged, encoder, EXTRACT)
    assert SavedProbe.load(tmp_path).card.half_width is None


@pytest.mark.parametrize("case", CASES)
def test_no_patient_is_in_any_file(tmp_path: Path, encoder: OurSource, case: str) -> None:
    judged, _ = probe_of(case)
    folder = save_probe(tmp_path, judged, encoder, EXTRACT)
    for file in folder.iterdir():
        content = file.read_bytes()
        for name in (b"patient0", b"study0", b"clip0"):
            assert name not in content, file.name
