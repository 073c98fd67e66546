"""Who is shown the volume of every frame tells the ejection fraction, from manifest to results.

What is left is what a clip does not show: its beats are not the usual one, most of all in atrial
fibrillation, and it may not hold a whole one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.bench import EF, PLAIN
from support.truth import Extremes, Reader, Truth, log_volume, source

from echojepa.data.manifest.file import write_manifest
from echojepa.data.sampling import ClipConfig
from echojepa.evaluate import EvaluateConfig, evaluate
from echojepa.phantom import PhantomConfig
from echojepa.probes.features import FeatureConfig, TokenConfig
from echojepa.probes.fitting import AnyProbe, ProbeResult
from echojepa.probes.grid.config import GridConfig
from echojepa.probes.linear import LinearConfig

CLIP = ClipConfig(num_frames=32, fps=30.0, size=2)
ATTENTIVE = GridConfig(num_heads=4, lr=(1e-2,), weight_decay=(0.01,), epochs=60, batch=16)
BAR = 1.0
"""Points of ejection fraction."""


def evaluated(
    studies: PhantomConfig, kind: type[Reader], probe: AnyProbe, out: Path
) -> list[ProbeResult]:
    """Of the probe, and of the mean of the training patients."""
    truth = Truth(studies, log_volume, CLIP)
    manifest = write_manifest(truth.manifest(), out / "manifest.parquet")
    config = EvaluateConfig(
        encoders={"truth": source(kind, CLIP, np.log(5.0), np.log(400.0))},
        manifest=str(manifest),
        out=str(out / "evaluation"),
        tasks=(EF,),
        probes={"probe": probe},
        features=FeatureConfig(windows=1),
        tokens=TokenConfig(keep="pooled" if kind is Extremes else "tokens"),
        twin_seed=None,
        groups=("rhythm",),
        page=PLAIN,
    )
    results = evaluate(config, truth)
    for result in results:
        low, high = result.intervals["mae"]
        print(f"{result.features}: {result.test['mae']:.2f} [{low:.2f}, {high:.2f}] points")
    return results


def test_from_extremes_of_the_volume_by_a_linear_probe(tmp_path: Path) -> None:
    studies = PhantomConfig(num_studies=160, views=("A4C",))
    of_probe, of_mean = evaluated(studies, Extremes, LinearConfig(), tmp_path)
    assert of_probe.intervals["mae"].high < BAR
    assert of_mean.test["mae"] > 10 * BAR


@pytest.mark.integration
def test_from_the_volume_of_every_frame_by_an_attentive_probe(tmp_path: Path) -> None:
    shares = (0.6, 0.15, 0.25)
    views = ("A4C", "PSAX-PM")
    studies = PhantomConfig(num_studies=400, views=views, split_fractions=shares)
    of_probe, of_mean = evaluated(studies, Reader, ATTENTIVE, tmp_path)
    assert of_probe.test["mae"] < BAR
    assert of_mean.test["mae"] > 10 * BAR
    by_rhythm = {group["value"]: group["test_intervals"]["mae"] for group in of_probe.by_group}
    assert by_rhythm["sinus"].high < BAR
