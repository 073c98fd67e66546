"""The phantom can't be cheated: labels can't be read off anything but the moving picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from pydicom import dcmread
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingRegressor
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold, cross_val_predict

from echojepa.data.manifest.file import read_manifest
from echojepa.data.manifest.schema import SCHEMA
from echojepa.phantom import PhantomConfig, write_phantom
from echojepa.phantom.anatomy.cycle import Phase
from echojepa.phantom.anatomy.heart import Heart
from echojepa.phantom.anatomy.patient import Patient
from echojepa.phantom.clip import draw_setup, patient_number, study_patient
from echojepa.phantom.files.clip_file import TABLE_SCHEMA
from echojepa.phantom.files.identity import draw_identity
from echojepa.phantom.machine.overlay import burn_in
from echojepa.phantom.machine.scan import Scanner
from echojepa.phantom.view.views import VIEWS

CONFIG = PhantomConfig(num_studies=1)


def predictable(features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
    """R2 of boosted trees on patients they have not seen."""
    trees = HistGradientBoostingRegressor(max_iter=150, learning_rate=0.05, max_leaf_nodes=8)
    predicted = cross_val_predict(trees, features, labels, cv=GroupKFold(5), groups=groups)
    return float(r2_score(labels, predicted))


@pytest.fixture(scope="module")
def surrounding() -> tuple[np.ndarray, list[Patient], np.ndarray]:
    """All that a file tells beside its pixels [N, 8], whose it is, and the patients' numbers."""
    features, patients, numbers = [], [], []
    for study in range(1500):
        setup = draw_setup(CONFIG, study, "A4C")
        knobs = setup.knobs
        features.append(
            [
                knobs.native_fps,
                CONFIG.num_frames / knobs.native_fps,
                setup.patient.heart.cycle.heart_rate,
                float(np.diff(setup.rhythm.starts).std()),
                Scanner(knobs, 112, 0.0, 1.0).pixel_cm,
                knobs.half_angle_rad,
                knobs.wavelength_cm,
                knobs.gain_db,
            ]
        )
        patients.append(setup.patient)
        numbers.append(patient_number(CONFIG, study)[0])
    return np.array(features), patients, np.array(numbers)


@pytest.mark.parametrize("label", ["lvef", "rvsp"])
def test_no_function_in_what_surrounds_the_picture(
    label: str, surrounding: tuple[np.ndarray, list[Patient], np.ndarray]
) -> None:
    """Frame rate, length, heart rate and its variation, pixel spacing, angle, frequency, gain."""
    features, patients, numbers = surrounding
    labels = np.array([patient.heart.labels[label] for patient in patients])
    assert predictable(features, labels, numbers) <= 0.05


@pytest.mark.parametrize("label", ["edv_ml", "esv_ml", "wall_cm", "tapse_cm"])
def test_no_size_but_the_bodys_in_what_surrounds_the_picture(
    label: str, surrounding: tuple[np.ndarray, list[Patient], np.ndarray]
) -> None:
    """Pixel spacing tells children from adults; among adults it tells next to nothing."""
    features, patients, numbers = surrounding
    adult = np.array([patient.population == "adult" for patient in patients])
    labels = np.array([patient.heart.labels[label] for patient in patients])
    assert predictable(features[adult], labels[adult], numbers[adult]) <= 0.1


def geometry(heart: Heart, out: float) -> list[float]:
    """Measures of the heart at one instant, exact: far more than one plane shows of them."""
    chambers = heart.at(Phase(out, 0.0, 0.0, 0.0)).chambers
    lv = chambers["lv"]
    found = [lv.volume_ml() ** (1 / 3)]
    found += [chambers[n].stretch * chambers[n].shape.height_cm for n in ("lv", "la", "ra", "rv")]
    for angle in np.linspace(0.0, 2.0 * np.pi, 6, endpoint=False):
        for height in (0.25, 0.5, 0.8):
            at = np.full(2, angle), np.full(2, height * lv.shape.height_cm), np.array([0.0, 1.0])
            inner, outer = np.linalg.norm(lv.positions(lv.pieces(*at))[:, :2], axis=1)
            found += [inner, outer - inner]
    return [*found, heart.size, heart.cycle.heart_rate]


@pytest.mark.integration
def test_ejection_fraction_is_not_in_the_measures_of_one_instant_even_with_its_phase() -> None:
    """Regional radii and walls, lengths of chambers, body size, heart rate, how far the beat is."""
    rng = np.random.default_rng(0)
    features, labels, patients = [], [], []
    for study in range(3000):
        heart = study_patient(CONFIG, study).heart
        out = float(heart.cycle.emptying(rng.uniform(0.0, heart.cycle.beat_seconds)))
        features.append([*geometry(heart, out), out])
        labels.append(heart.labels["lvef"])
        patients.append(patient_number(CONFIG, study)[0])
    r2 = predictable(np.array(features), np.array(labels), np.array(patients))
    print(f"R2 of the ejection fraction from one instant's exact measures: {r2:.2f}")
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


def header_values(path: Path) -> list[Any]:
    """Everything a file says of itself, as text and as numbers."""
    if path.suffix == ".dcm":
        elements = [e for e in dcmread(path, stop_before_pixels=True).iterall() if e.VR != "SQ"]
        listed = [e.value if e.VM > 1 else [e.value] for e in elements]
        return [value for values in listed for value in values]
    with av.open(str(path)) as container:
        texts = {**container.metadata, **container.streams.video[0].metadata}
        return [*texts, *texts.values()]


def test_names_and_headers_hold_no_label(tmp_path: Path) -> None:
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
    label_names = set(TABLE_SCHEMA.names) - set(SCHEMA.names) - {"vendor", "study_date"}
    assert {"lvef", "rvsp", "rhythm", "wall_motion"} < label_names
    for row in rows:
        said = [row["uri"], *header_values(tmp_path / row["uri"])]
        text = " ".join(map(str, said)).lower()
        numbers = [float(value) for value in said if isinstance(value, int | float)]
        for name in (*label_names, "view", "population"):
            assert name not in text
            if isinstance(row[name], str):
                assert row[name].lower() not in text
            else:
                assert not any(abs(number - row[name]) < 2e-3 for number in numbers), name


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
