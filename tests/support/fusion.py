"""The pressure of the right ventricle from two views, together and when one of them is missing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from echojepa.encoders.source import Source
from echojepa.phantom import PhantomConfig
from echojepa.probes.examples import Material, examples_of
from echojepa.probes.extraction import Executor, ExtractConfig, extract
from echojepa.probes.features import FeatureConfig, TokenConfig
from echojepa.probes.fitting import AnyProbe, ProbeResult, fit_probe, judge
from echojepa.probes.grid.config import GridConfig
from echojepa.probes.intervals import Interval, differences
from echojepa.probes.store import Features
from echojepa.probes.tasks import Slot, Task, labelled_rows

Results = dict[str, ProbeResult]
"""By the view that is missing."""
FOUR, SHORT = "A4C", "PSAX-PM"
BOTH = (FOUR, SHORT)
NOTHING = ""
"""What is missing where both views are there."""
PHANTOM = PhantomConfig(
    num_studies=600,
    views=BOTH,
    size=64,
    num_frames=32,
    native_fps=(20.0, 25.0),
    vendors=("aster",),
    held_out_vendor=None,
    paediatric_fraction=0.0,
    obese_fraction=0.0,
    overlays=False,
    follow_up_fraction=0.0,
    avi_fraction=0.0,
    split_fractions=(0.5, 0.15, 0.35),
)
"""Adults on one machine, in videos that hold a whole beat."""
REFERENCE = GridConfig(
    num_heads=4,
    lr=(1e-2, 3e-3, 1e-3, 3e-4),
    weight_decay=(0.01,),
    epochs=30,
    batch=16,
    fusion="early",
    embeddings=True,
    view_dropout=0.1,
)
"""How two views are fused; views are left out as often as by EchoJEPA's authors."""
WITHOUT: dict[str, dict[str, object]] = {
    "embeddings": {"embeddings": False},
    "early fusion": {"fusion": "late"},
    "view dropout": {"view_dropout": 0.0},
}
"""What is taken away from it."""


def features_of(
    rows: pa.Table, sources: Mapping[str, Source], executor: Executor, folder: Path
) -> dict[str, Features]:
    """By encoder: of one window in the middle of every clip, the means of a grid of tokens."""
    tokens = TokenConfig(keep="grid", grid=(4, 4, 4))
    config = ExtractConfig(features=FeatureConfig(windows=1), tokens=tokens)
    stores = extract(rows, sources, config, folder, executor).stores
    return {name: store.read() for name, store in stores.items()}


class Fusion:
    """Probes on one encoder's features of clips of both views; what was fitted once it knows."""

    def __init__(self, rows: pa.Table, features: Features) -> None:
        self._rows, self._features = rows, features
        views = rows["view"].to_pylist()
        self._view_of = dict(zip(rows["clip_id"].to_pylist(), views, strict=True))
        self._known: dict[tuple[AnyProbe, tuple[str, ...]], Results] = {}

    def material(self, views: tuple[str, ...] = BOTH, missing: str = NOTHING) -> Material:
        """Studies with clips of these views; of one that is missing, no clip can be read."""
        readable = {c for c in self._features.readable() if self._view_of[c] != missing}
        slots = tuple(Slot(view=view) for view in views)
        task = Task(name="pressure", label="rvsp", kind="regression", unit="mmHg", slots=slots)
        rows = labelled_rows(self._rows, task)
        return Material(examples_of(rows, task, readable), self._features)

    def results(self, config: AnyProbe, views: tuple[str, ...] = BOTH) -> Results:
        """What a probe is worth that has learned from these views, by what then is missing."""
        if (config, views) not in self._known:
            whole = self.material(views)
            probe = fit_probe(config, whole, whole.examples.labels)
            absences = (NOTHING, *views) if len(views) > 1 else (NOTHING,)
            left = {missing: self.material(views, missing) for missing in absences}
            self._known[config, views] = {
                missing: judge(config.kind, probe, material, material.examples.labels)
                for missing, material in left.items()
            }
        return self._known[config, views]


def worse(one: ProbeResult, other: ProbeResult) -> Interval:
    """By how much the mean error of `one` is above that of `other`, in mmHg: an interval."""
    return differences(one.drawn, other.drawn)["mae"]
