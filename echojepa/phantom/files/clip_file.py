"""One clip to a file and a manifest row."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from echojepa.data.manifest.schema import SCHEMA
from echojepa.data.video_file import write_video
from echojepa.phantom.clip import Clip, patient_number, render_clip, study_date
from echojepa.phantom.config import PhantomConfig
from echojepa.phantom.files.dicom import DicomFacts, write_dicom
from echojepa.phantom.files.identity import draw_identity
from echojepa.phantom.files.layouts import clip_path, instance_number, pseudonym
from echojepa.phantom.view.views import VIEWS

_LABELS = ("lvef", "edv_ml", "esv_ml", "heart_rate", "wall_cm", "tapse_cm", "rvsp")
_KINDS = ("vendor", "rhythm", "wall_motion", "study_date")
TABLE_SCHEMA = pa.schema(
    [
        *SCHEMA,
        *(pa.field(name, pa.float64()) for name in _LABELS),
        *(pa.field(name, pa.string()) for name in _KINDS),
    ]
)


def write_clip(
    config: PhantomConfig, out: Path, study: int, which: tuple[str, int, int]
) -> dict[str, Any]:
    """Render and write one clip; return its manifest row.

    `which` is its view, its take and its number among the study's clips.
    """
    view, take, number = which
    clip = render_clip(config, study, view, take)
    first = patient_number(config, study)[0]
    names = {
        "clip_id": pseudonym(config, "clip", study, view, take),
        "patient_id": pseudonym(config, "patient", first),
        "study_id": pseudonym(config, "study", study),
    }
    lots = np.random.default_rng([config.seed, 6, study, list(VIEWS).index(view), take]).random(2)
    suffix = ".dcm" if lots[0] >= 1.0 - config.dicom_fraction else ".mp4"
    suffix = ".avi" if lots[0] < config.avi_fraction else suffix
    uri = clip_path(config, first, study, number, names["clip_id"], suffix)
    (out / uri).parent.mkdir(parents=True, exist_ok=True)
    if suffix == ".dcm":
        facts = DicomFacts(
            **names,
            study_date=study_date(config, study),
            instance_number=instance_number(config, study, number),
            manufacturer=clip.patient.vendor,
            native_fps=clip.native_fps,
            pixel_cm=clip.scanner.pixel_cm,
            box=_sector_box(clip),
            colour_box=clip.colour_corners,
            identity=draw_identity(config.seed, first) if config.planted_identities else None,
            compressed=bool(lots[1] < 0.5),
        )
        write_dicom(clip.frames, facts, out / uri)
    else:
        write_video(clip.frames, clip.native_fps, out / uri)
    return {
        **names,
        **_facts(config, clip, view),
        "study_date": study_date(config, study).isoformat(),
        "uri": uri,
        "content_hash": content_hash(out / uri),
    }


def content_hash(path: Path) -> str | None:
    """Of a file, as the manifest holds it; none if there is no such file."""
    if not path.is_file():
        return None
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def _facts(config: PhantomConfig, clip: Clip, view: str) -> dict[str, Any]:
    """What the manifest says about a clip's content."""
    patient = clip.patient
    return {
        "num_frames": config.num_frames,
        "native_fps": clip.native_fps,
        "duration_seconds": config.num_frames / clip.native_fps,
        "height": config.size,
        "width": config.size,
        "view": view,
        "doppler": "colour" if clip.frames.ndim == 4 else "none",
        "split": None,
        "population": patient.population,
        **clip.labels,
        "vendor": patient.vendor,
        "rhythm": patient.rhythm,
        "wall_motion": patient.wall_motion,
    }


def _sector_box(clip: Clip) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(clip.scanner.sector())
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())
