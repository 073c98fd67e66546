"""The phantom can't be cheated: labels can't be read off anything but the moving picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingRegressor
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold, cross_val_predict

from echojepa.data.manifest import SCHEMA, read_manifest
from echojepa.data.phantom import PhantomConfig, write_phantom
from echojepa.data.phantom.clip import draw_setup, patient_number, study_patient
from echojepa.data.phantom.cycle import Phase
from echojepa.data.phantom.heart import Heart
from echojepa.data.phantom.identity import draw_identity
from echojepa.data.phantom.overlay import burn_in
from echojepa.data.phantom.scan import Scanner
from echojepa.data.phantom.study import TABLE_SCHEMA
from echojepa.data.phantom.views import VIEWS

CONFIG = PhantomConfig(num_studies=1)


def predictable(features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
    """R2 of boosted trees on patients they have not seen."""
    trees = HistGradientBoostingRegressor(max_iter=150, learning_rate=0.05, max_leaf_nodes=8)
    predicted = cross_val_predict(trees, features, labels, cv=GroupKFold(5), groups=groups)
    return float(r2_score(labels, predicted))


def test_ejection_fraction_is_not_in_what_surrounds_the_picture() -> None:
    """Frame rate, length, frame and heart size, heart rate, depth, pixel spacing, angle, gain."""
    features, labels, patients = [], [], []
    for study in range(1500):
        setup = draw_setup(CONFIG, study, "A4C")
        knobs, heart = setup.knobs, setup.patient.heart
        features.append(
            [
                knobs.native_fps,
                CONFIG.num_frames / knobs.native_fps,
                heart.size,
                heart.cycle.heart_rate,
                float(np.diff(setup.rhythm.starts).std()),
                knobs.depth_cm,
                knobs.half_angle_rad,
                knobs.gain_db,
            ]
        )
        labels.append(heart.labels["lvef"])
        patients.append(patient_number(CONFIG, study)[0])
    assert predictable(np.array(features), np.array(labels), np.array(patients)) <= 0.05


def geometry(heart: Heart, out: float) -> list[float]:
    """All that one frame could show of the left ventricle, and of what it may be compared with."""
    lv = heart.at(Phase(out, 0.0, 0.0, 0.0)).chambers["lv"]
    middle = np.zeros(2), np.full(2, 0.5 * lv.shape.height_cm), np.array([0.0, 1.0])
    inner, outer = np.linalg.norm(lv.place(lv.pieces(*middle))[:, :2], axis=1)
    volume, length = lv.volume_ml(), lv.stretch * lv.shape.height_cm
    sizes = [volume ** (1 / 3), length, inner, outer - inner]
    atrium = heart.atrial_length_cm
    return [*sizes, *(size / atrium for size in sizes), atrium, heart.size, heart.rv_dilation]


@pytest.mark.integration
def test_ejection_fraction_is_not_in_one_frame_even_with_exact_geometry_and_phase() -> None:
    """More than any reader of one frame can have: exact measures, and how far the beat has got."""
    rng = np.random.default_rng(0)
    features, labels, patients = [], [], []
    for study in range(3000):
        heart = study_patient(CONFIG, study).heart
        out = float(heart.cycle.emptying(rng.uniform(0.0, heart.cycle.beat_seconds)))
        features.append([*geometry(heart, out), out])
        labels.append(heart.labels["lvef"])
        patients.append(patient_number(CONFIG, study)[0])
    r2 = predictable(np.array(features), np.array(labels), np.array(patients))
    print(f"R2 of the ejection fraction from one frame's exact geometry: {r2:.2f}")
    assert r2 <= 0.3


def surroundings(study: int, view: str) -> np.ndarray:
    """A frame with all but the echoes: the sector, the text and the trace, uint8 [56, 56]."""
    config = CONFIG.model_copy(update={"num_frames": 2})
    setup = draw_setup(config, study, view)
    sector = Scanner(setup.knobs, 112, 0.0, 1.0).sector()
    frames = np.repeat((60 * sector).astype(np.uint8)[None], 2, axis=0)
    burn_in(frames, setup.knobs, setup.rhythm, setup.seconds, None)
    return frames[1].reshape(56, 2, 56, 2).mean(axis=(1, 3))


def test_the_view_is_not_in_sector_text_or_trace() -> None:
    views = list(VIEWS)
    pixels = {"train": [], "test": []}
    labels = {"train": [], "test": []}
    for study in range(110):
        part = "train" if study < 80 else "test"
        for number, view in enumerate(views):
            pixels[part].append(surroundings(study, view).ravel())
            labels[part].append(number)
    trees = ExtraTreesClassifier(200, random_state=0).fit(pixels["train"], labels["train"])
    accuracy = float(trees.score(pixels["test"], labels["test"]))
    assert accuracy <= 1.0 / len(views) + 0.05


def test_names_and_headers_hold_no_label(tmp_path: Path) -> None:
    """Neither as text nor as a number, in any way a header would write it."""
    config = PhantomConfig(
        num_studies=4,
        size=48,
        num_frames=3,
        views=("A4C", "PLAX", "PSAX-AV"),
        avi_fraction=0.34,
        dicom_fraction=0.33,
        seed=4,
    )
    rows = read_manifest(write_phantom(config, tmp_path)).to_pylist()
    assert {Path(row["uri"]).suffix for row in rows} == {".mp4", ".avi", ".dcm"}
    label_names = set(TABLE_SCHEMA.names) - set(SCHEMA.names) - {"vendor"}
    assert {"lvef", "rvsp", "rhythm", "wall_motion"} < label_names
    for row in rows:
        content = (tmp_path / row["uri"]).read_bytes()
        head = row["uri"].encode() + content[:4000]
        for name in (*label_names, "view", "population"):
            value = row[name]
            texts = [value] if isinstance(value, str) else [f"{value:.{d}f}" for d in (2, 3, 6)]
            for text in (*texts, name):
                assert text.encode().lower() not in head.lower(), (name, text)


def test_identities_stand_only_where_they_were_planted(tmp_path: Path) -> None:
    config = PhantomConfig(
        num_studies=2, size=48, num_frames=2, views=("A4C",), dicom_fraction=1.0, avi_fraction=0.0
    )
    who = draw_identity(config.seed, 0)
    secrets = (who.family, who.given, who.number, who.birth_date)

    def betrayed(folder: Path) -> set[str]:
        contents = b"".join(p.read_bytes() for p in folder.rglob("*") if p.is_file())
        return {secret for secret in secrets if secret.encode() in contents}

    write_phantom(config, tmp_path / "clean")
    assert not betrayed(tmp_path / "clean")
    write_phantom(config.model_copy(update={"planted_identities": True}), tmp_path / "planted")
    assert betrayed(tmp_path / "planted") == set(secrets)
