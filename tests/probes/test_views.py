"""Two views of a study tell more than one, through manifest, feature store, slots and heads.

Every clip shows half of the pressure, and nothing else. Both halves are coded alike, so that only
embeddings tell which is which.
"""

from __future__ import annotations

import numpy as np
import pytest
from support.fusion import (
    BOTH,
    FOUR,
    NOTHING,
    PHANTOM,
    REFERENCE,
    SHORT,
    WITHOUT,
    Fusion,
    features_of,
    worse,
)
from support.truth import Reader, Truth, half_the_pressure, source

from echojepa.data.sampling import ClipConfig
from echojepa.probes.fitting import fit_probe

STUDIES = PHANTOM.model_copy(update={"num_studies": 400})
CLIP = ClipConfig(num_frames=2, fps=5.0, size=2)
EARLY = REFERENCE.model_copy(update={"lr": (1e-2,), "epochs": 20, "view_dropout": 0.3})


@pytest.fixture(scope="module")
def fusion(tmp_path_factory: pytest.TempPathFactory) -> Fusion:
    truth = Truth(STUDIES, half_the_pressure, CLIP)
    rows, sources = truth.manifest(), {"truth": source(Reader, CLIP, 0.0, 1.0)}
    return Fusion(rows, features_of(rows, sources, truth, tmp_path_factory.mktemp("f"))["truth"])


@pytest.mark.parametrize("view", BOTH)
def test_two_views_beat_each(view: str, fusion: Fusion) -> None:
    alone = fusion.results(EARLY.model_copy(update=WITHOUT["view dropout"]), (view,))[NOTHING]
    assert alone.test["r2"] > 0.3, "each tells something"
    assert worse(alone, fusion.results(EARLY)[NOTHING]).low > 0


@pytest.mark.parametrize("missing", BOTH)
def test_view_dropout_prepares_for_a_missing_view(missing: str, fusion: Fusion) -> None:
    unprepared = fusion.results(EARLY.model_copy(update=WITHOUT["view dropout"]))
    assert worse(unprepared[missing], fusion.results(EARLY)[missing]).low > 0


def test_embeddings_tell_views_apart_whose_tokens_look_alike(fusion: Fusion) -> None:
    mixed = fusion.results(EARLY.model_copy(update=WITHOUT["embeddings"]))
    assert worse(mixed[NOTHING], fusion.results(EARLY)[NOTHING]).low > 0


def test_fused_late_a_study_is_the_mean_of_what_its_clips_say(fusion: Fusion) -> None:
    material = fusion.material()
    labels = material.examples.labels
    late = EARLY.model_copy(update={**WITHOUT["early fusion"], "epochs": 3})
    probe, index = fit_probe(late, material, labels), np.flatnonzero(labels.splits == "test")
    said = {m: probe.predict(fusion.material(missing=m), index) for m in (NOTHING, *BOTH)}
    assert np.abs(said[FOUR] - said[SHORT]).mean() > 1.0, "which differs, in mmHg"
    np.testing.assert_allclose(said[NOTHING], (said[FOUR] + said[SHORT]) / 2, rtol=1e-4)
