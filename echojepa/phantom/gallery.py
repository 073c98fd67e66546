"""The gallery: one page on which every view, machine, population, severity and knob plays.

    write_gallery(PhantomConfig(num_studies=1, size=224), Path("gallery.html"))

Its hearts are the first studies of the config that fit, so the page shows what a data set of the
same config holds.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from echojepa.data.video_file import mp4_bytes
from echojepa.errors import PhantomError
from echojepa.page import film, page, section
from echojepa.phantom.anatomy.patient import TERRITORIES, Patient
from echojepa.phantom.anatomy.populations import POPULATIONS
from echojepa.phantom.clip import render_clip, study_patient
from echojepa.phantom.config import PhantomConfig
from echojepa.phantom.study import explained
from echojepa.phantom.view.views import VIEWS

SEVERITIES = {
    "normal": (52.0, 100.0),
    "mildly reduced": (41.0, 52.0),
    "moderately reduced": (30.0, 41.0),
    "severely reduced": (0.0, 30.0),
}
"""Ejection fraction, percent, from (inclusive) and to: Lang et al., J. Am. Soc. Echocardiogr.
28:1, 2015 (men)."""
_SEARCHED = 5000
Fits = Callable[[Patient], bool]


@dataclass(frozen=True)
class Exhibit:
    """One clip of the gallery."""

    caption: str
    study: int
    view: str
    changes: dict[str, Any] = field(default_factory=dict)
    """Settings that differ from the config's."""


MapExhibits = Callable[[Callable[[Exhibit], str], Iterable[Exhibit]], Iterable[str]]
"""Applies a function to exhibits, in order: `map`, or one that uses a cluster."""


def write_gallery(config: PhantomConfig, path: Path, map_exhibits: MapExhibits = map) -> Path:
    """Render all exhibits and write the page (HTML with the videos inside); returns its path.

    Raises:
        PhantomError: the config has no patient of a kind that the gallery shows, or the page
            cannot be written there.
    """
    rooms = list_exhibits(config)
    if path.is_dir():
        raise PhantomError(
            "this is a folder", "Name the page to write, as gallery.html.", str(path)
        )
    aside = path.with_name(f"{path.name}.partial")
    with explained(path):
        aside.touch()
    shown = iter(
        map_exhibits(_Film(config), [exhibit for room in rooms.values() for exhibit in room])
    )
    parts = []
    for title, room in rooms.items():
        films = "".join(next(shown) for _ in room)
        parts.append(section(title, f"<div class='films'>{films}</div>"))
    lead = (
        "<p class='note'>Computed hearts: no patient, no diagnosis, research use only. "
        f"Seed <code>{config.seed}</code>, {config.num_frames} frames of "
        f"{html.escape(str(config.size))} pixels.</p>"
    )
    with explained(path):
        aside.write_text(page("Phantom hearts", lead, "".join(parts)), encoding="utf-8")
        aside.replace(path)
    return path


@dataclass(frozen=True)
class _Film:
    """Renders an exhibit to its piece of the page."""

    config: PhantomConfig

    def __call__(self, exhibit: Exhibit) -> str:
        config = self.config.model_copy(update={"colour_fraction": 0.0, **exhibit.changes})
        clip = render_clip(config, exhibit.study, exhibit.view)
        return film(mp4_bytes(clip.frames, clip.native_fps), exhibit.caption)


def list_exhibits(config: PhantomConfig) -> dict[str, list[Exhibit]]:
    """All exhibits, by the title of the section they stand in."""
    usual = _find(config, "a healthy adult", _healthy)
    return {
        "Views": [Exhibit(view, usual, view) for view in VIEWS],
        "Machines": [
            Exhibit(name, _find(config, f"a healthy adult on {name}", _on(name)), "A4C")
            for name in config.vendors
        ],
        "Populations": [
            Exhibit(f"{name}, {view}", _find(config, name, _of(name)), view)
            for name in _drawn_populations(config)
            for view in ("A4C", "PSAX-PM")
        ],
        "Left ventricular function": _function(config),
        "Wall motion and rhythm": _motion(config),
        "Pressure in the right ventricle": _pressure(config),
        "Colour Doppler": [
            Exhibit(f"{view}, colour", usual, view, {"colour_fraction": 1.0})
            for view in ("A4C", "A5C", "PLAX")
        ],
        "Noise, by its three knobs": _noise(config, usual),
    }


def _function(config: PhantomConfig) -> list[Exhibit]:
    exhibits = []
    for name, (low, high) in SEVERITIES.items():
        study = _find(config, name, _ejects(low, high))
        fraction = study_patient(config, study).heart.labels["lvef"]
        exhibits += [
            Exhibit(f"{name}: EF {fraction:.0f} %, {view}", study, view) for view in ("A4C", "PLAX")
        ]
    return exhibits


def _motion(config: PhantomConfig) -> list[Exhibit]:
    exhibits = []
    views = {"anterior": "A2C", "inferior": "A2C", "lateral": "A4C"}
    if config.wall_motion_fraction > 0:
        for territory in TERRITORIES:
            study = _find(config, f"a {territory} scar", _scarred(territory))
            for view in (views[territory], "PSAX-PM"):
                exhibits.append(Exhibit(f"{territory} wall, {view}", study, view))
    if config.fibrillation_fraction > 0:
        study = _find(config, "fibrillation", lambda p: p.rhythm == "fibrillation")
        exhibits.append(Exhibit("atrial fibrillation, A4C", study, "A4C"))
    return exhibits


def _pressure(config: PhantomConfig) -> list[Exhibit]:
    exhibits = []
    for name, low, high in (("low", 0.0, 32.0), ("high", 60.0, 200.0)):
        study = _find(config, f"{name} pressure", _presses(low, high))
        pressure = study_patient(config, study).heart.labels["rvsp"]
        exhibits += [
            Exhibit(f"RVSP {pressure:.0f} mmHg, {view}", study, view) for view in ("A4C", "PSAX-PM")
        ]
    return exhibits


def _noise(config: PhantomConfig, usual: int) -> list[Exhibit]:
    knobs: dict[str, tuple[str, tuple[float, ...]]] = {
        "decorrelation_seconds": ("speckle lasts {} s", (0.05, 0.35, 2.0)),
        "speckle_contrast": ("speckle contrast {}", (0.0, 0.5, 1.0)),
        "electronic_noise": ("electronic noise {}", (0.0, 0.04, 0.3)),
    }
    return [
        Exhibit(caption.format(value), usual, "A4C", {knob: value})
        for knob, (caption, values) in knobs.items()
        for value in values
    ]


def _drawn_populations(config: PhantomConfig) -> list[str]:
    shares = {"paediatric": config.paediatric_fraction, "obese": config.obese_fraction}
    shares["adult"] = 1.0 - sum(shares.values())
    return [name for name in POPULATIONS if shares[name] > 0]


def _plain(patient: Patient) -> bool:
    """An adult with a regular rhythm and no scar."""
    return (patient.population, patient.rhythm, patient.wall_motion) == (
        "adult",
        "sinus",
        "normal",
    )


def _healthy(patient: Patient) -> bool:
    """Plain, and of usual size and function."""
    heart = patient.heart
    usual = 55.0 < heart.ejection_fraction < 70.0 and 90.0 < heart.edv_ml < 150.0
    return _plain(patient) and usual


def _on(vendor: str) -> Fits:
    return lambda patient: _healthy(patient) and patient.vendor == vendor


def _of(population: str) -> Fits:
    return lambda p: (
        p.population == population
        and (p.rhythm, p.wall_motion)
        == (
            "sinus",
            "normal",
        )
    )


def _ejects(low: float, high: float) -> Fits:
    return lambda patient: _plain(patient) and low <= patient.heart.ejection_fraction < high


def _presses(low: float, high: float) -> Fits:
    return lambda patient: _plain(patient) and low <= patient.heart.labels["rvsp"] < high


def _scarred(territory: str) -> Fits:
    return lambda patient: patient.wall_motion == territory and patient.population == "adult"


def _find(config: PhantomConfig, kind: str, fits: Fits) -> int:
    """The first study whose patient fits."""
    for study in range(_SEARCHED):
        if fits(study_patient(config, study)):
            return study
    raise PhantomError(
        f"the gallery shows {kind}, and no such patient is among {_SEARCHED} studies",
        "Leave the shares of patients as they are by default.",
    )
