"""Two views against one, each part of their fusion taken away, each view missing afterwards.

pytest -m soak tests/benchmarks/test_views.py -s

Writes two small phantoms and an encoder into the folder $PHANTOM, or a temporary one: half an hour
on one core. From one phantom the encoder learns to measure; on the other, other patients, its
features are judged, and so are the measures themselves.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support.benchmarks.measuring import CLIP, POINT_CM2, Measured, cut, sign, taught, teach
from support.fusion import (
    BOTH,
    FOUR,
    NOTHING,
    PHANTOM,
    REFERENCE,
    SHORT,
    WITHOUT,
    Fusion,
    Results,
    features_of,
    worse,
)
from support.here import Here
from support.truth import Filmed, Reader, Truth, source

from echojepa.data.decode.frames import ReadConfig
from echojepa.data.manifest.file import read_manifest, with_absolute_uris
from echojepa.data.sampling import ClipConfig
from echojepa.phantom import PhantomConfig, render_clip, write_phantom
from echojepa.probes.features import load_view
from echojepa.probes.fitting import BASELINE, fit_baseline, judge
from echojepa.probes.linear import LinearConfig

pytestmark = [pytest.mark.soak, pytest.mark.timeout(2 * 3600)]
OTHERS = PHANTOM.model_copy(update={"num_studies": 500, "seed": 1})
NUM_EPOCHS = 40
WHOLE = "both views"


@pytest.fixture(scope="module")
def folder() -> Path:
    return Path(os.environ.get("PHANTOM") or tempfile.mkdtemp())


def filmed(config: PhantomConfig, folder: Path) -> pa.Table:
    """The clips of a phantom, which is written where it is not there."""
    manifest = write_phantom(config, folder)
    return with_absolute_uris(read_manifest(manifest), manifest.parent).sort_by("clip_id")


@pytest.fixture(scope="module")
def rows(folder: Path) -> pa.Table:
    return filmed(PHANTOM, folder / "judged")


@pytest.fixture(scope="module")
def measured(rows: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Fusion:
    """Features that are the measures themselves."""
    clip = ClipConfig(num_frames=CLIP.num_frames, fps=CLIP.fps, size=2)
    truth, sources = Truth(PHANTOM, sign, clip), {"truth": source(Reader, clip, -0.1, 1.1)}
    return Fusion(rows, features_of(rows, sources, truth, tmp_path_factory.mktemp("f"))["truth"])


@pytest.fixture(scope="module")
def seen(rows: pa.Table, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Fusion:
    """Features of pixels, by an encoder that has learned from other patients what is measured."""
    weights = folder / "encoder.safetensors"
    if not weights.is_file():
        clips = filmed(OTHERS, folder / "taught").to_pylist()
        pixels = np.stack([load_view(row, CLIP, ReadConfig())[..., 1] for row in clips])
        signs = Truth(OTHERS, sign, CLIP).measures(clips).mean(axis=1)
        views = np.array([row["view"] for row in clips])
        teach(Measured(pixels, signs, views), weights, NUM_EPOCHS)
    sources = {"taught": taught(weights)}
    return Fusion(rows, features_of(rows, sources, Here(), tmp_path_factory.mktemp("f"))["taught"])


def results_of(fusion: Fusion) -> dict[str, Results]:
    """By what was fitted, for every view that may be missing then."""
    alone = REFERENCE.model_copy(update=WITHOUT["view dropout"])
    labels = fusion.material().examples.labels
    mean = judge(BASELINE, fit_baseline(labels), fusion.material(), labels)
    found = {BASELINE: dict.fromkeys((NOTHING, SHORT, FOUR), mean)}
    for view, other in ((SHORT, FOUR), (FOUR, SHORT)):
        (result,) = fusion.results(alone, (view,)).values()
        found[f"{view} only"] = {NOTHING: result, other: result}
    found[WHOLE] = fusion.results(REFERENCE)
    for part, change in WITHOUT.items():
        found[f"without {part}"] = fusion.results(REFERENCE.model_copy(update=change))
    found["view dropout 0.3"] = fusion.results(REFERENCE.model_copy(update={"view_dropout": 0.3}))
    found["linear probe"] = fusion.results(LinearConfig())
    return found


def show(found: dict[str, Results]) -> None:
    """Mean errors with intervals, and differences to the reference where the same is missing."""
    print("\n| fitted | nothing missing | difference | PSAX-PM missing | difference "
          "| A4C missing | difference |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for name, results in found.items():
        cells = []
        for missing in (NOTHING, SHORT, FOUR):
            if missing not in results:
                cells += ["", ""]
                continue
            result, reference = results[missing], found[WHOLE][missing]
            low, high = result.intervals["mae"]
            less, more = worse(result, reference)
            by = result.test["mae"] - reference.test["mae"]
            cells.append(f"{result.test['mae']:.2f} [{low:.2f}, {high:.2f}]")
            cells.append("" if name == WHOLE else f"{by:+.2f} [{less:+.2f}, {more:+.2f}]")
        print(f"| {name} | {' | '.join(cells)} |")


@pytest.mark.parametrize("view", BOTH)
def test_measures_are_of_what_is_filmed(view: str) -> None:
    config = PHANTOM.model_copy(update={"num_frames": 2})
    clip, before = render_clip(config, 5, view), Filmed(config, 5, view)
    area_cm2 = clip.lv_cavity().sum(axis=(1, 2)) * clip.scanner.pixel_cm**2
    for frame in range(2):
        assert len(cut(before, frame, "lv")) * POINT_CM2 == pytest.approx(area_cm2[frame], rel=0.05)


def test_two_views_beat_one_and_one_may_be_missing(measured: Fusion) -> None:
    """Where features are the measures themselves."""
    found = results_of(measured)
    print(f"\nmeasured: {len(found[WHOLE][NOTHING].predictions.ids)} test studies")
    show(found)
    both = found[WHOLE]
    for view in BOTH:
        assert worse(found[f"{view} only"][NOTHING], both[NOTHING]).low > 0
        assert worse(found["without view dropout"][view], both[view]).low > 0


def test_an_encoder_that_has_learned_to_measure(seen: Fusion) -> None:
    """Printed, and judged by nobody: what is left of that in features of pixels."""
    found = results_of(seen)
    print(f"\nseen: {len(found[WHOLE][NOTHING].predictions.ids)} test studies")
    show(found)
    assert worse(found[BASELINE][NOTHING], found["linear probe"][NOTHING]).low > 0
