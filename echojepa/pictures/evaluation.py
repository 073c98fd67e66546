"""What plays and is mapped on the page of an evaluation: features, predictions, attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from echojepa.config import Strict
from echojepa.data.decode.frames import ReadConfig
from echojepa.data.sampling import ClipConfig
from echojepa.encoders.ours import OurNetwork
from echojepa.encoders.source import NetworkEncoder, Source
from echojepa.pictures.attention_films import Head, attention_section
from echojepa.pictures.films import Case, Clip, best_and_worst_section, extremes
from echojepa.pictures.masks import run_pictures
from echojepa.pictures.report import Report
from echojepa.pictures.umap import umap_section
from echojepa.probes.features import FeatureConfig, load_clips, load_view
from echojepa.probes.fitting import ProbeResult
from echojepa.probes.metrics import HEADLINE, goodness
from echojepa.probes.store import Features
from echojepa.probes.suites.findings import Findings, TaskFindings
from echojepa.probes.tasks import chosen, pick, with_clips

_SIDE = 160
_MAX_FRAMES = 48
_FEWEST = 8
"""Clips that a map of features is made of."""


class PageConfig(Strict):
    """What the page shows beside tables and plots."""

    maps: bool = True
    """A UMAP of the features of every trained encoder."""
    predictions: int = Field(3, ge=0)
    """So many of the best and of the worst predictions of every task, playing; those of the
    features that are best on validation."""
    attention: int = Field(1, ge=0)
    """Clips over which the attention of every trained encoder of V-JEPA 2's architecture plays."""
    attention_layers: tuple[int, ...] = ()
    """Of these blocks, from 0; none named are the first, the middle and the last."""
    attention_heads: tuple[int, ...] = ()
    """Of these heads, from 0; none named is their mean."""


class RunFacts(NamedTuple):
    """Of the pretraining run that an encoder comes from."""

    config: dict[str, Any]
    """Resolved."""
    curves: list[dict[str, Any]]
    """Logged metrics, one dict per logged step."""
    identity: dict[str, Any]
    """Hash of the config, commit, fingerprint of the manifest."""
    reconstruction: bytes | None
    """Clips as the network redraws them, PNG, if it does."""


class Page:
    """What goes onto the page of one evaluation."""

    def __init__(
        self, findings: Findings, table: pa.Table, read: ReadConfig, config: PageConfig
    ) -> None:
        self._findings = findings
        self._table = with_clips(table, findings.readable())
        self._read = read
        self._config = config

    def report(
        self,
        trained: Mapping[str, Source],
        coloured: Sequence[str],
        num_reads: int,
        run: RunFacts | None,
    ) -> Report:
        """All of it.

        Args:
            trained: encoders whose weights are not random.
            coloured: columns that maps are coloured by, where there are such.
            num_reads: how often the test split was read.
            run: its curves and masks are shown.
        """
        findings = self._findings
        seen = "; ".join(f"{n}: {known.describe()}" for n, known in findings.pretraining.items())
        facts = {
            "clips encoded": str(findings.num_clips),
            "test patients seen in pretraining": seen,
            "test split read": f"{num_reads} time(s)",
        }
        if run is not None:
            facts |= {
                "config hash": run.identity["config_hash"],
                "source commit": str(run.identity["git_commit"])[:12],
                "manifest SHA-256": run.identity["manifest_fingerprint"][:16],
            }
        return Report(
            results=findings.results,
            curves=run.curves if run else [],
            pictures=run_pictures(run.config, self._table, self._read) if run else [],
            reconstruction=run.reconstruction if run else None,
            facts=facts,
            unread=findings.unread,
            label_curve=findings.label_curve,
            severity=findings.severity,
            transfers=findings.transfers,
            failed={what: str(error) for what, error in findings.failed.items()},
            umap=self._maps(list(trained), coloured),
            films=self._predictions(),
            attention=self._attention(trained),
        )

    def _maps(self, names: Sequence[str], columns: Sequence[str]) -> str:
        """A map of the features of some encoders, in the colours of some columns."""
        rows = self._table
        if not self._config.maps or len(rows) < _FEWEST:
            return ""
        clip_ids = rows["clip_id"].to_pylist()
        there = [name for name in columns if name in rows.column_names]
        values = {name: rows[name].to_pylist() for name in dict.fromkeys(there)}
        shown = {name: v for name, v in values.items() if len(set(v) - {None}) > 1}
        found = ""
        for name in names:
            features: Features = self._findings.features[name]
            vectors = features.vectors(features.rows_for(clip_ids))
            found += umap_section(name, clip_ids, vectors, shown)
        return found

    def _predictions(self) -> str:
        """The best and the worst of every task."""
        number = self._config.predictions
        return "".join(
            self._extremes(one, number) for one in self._findings.tasks.values() if number
        )

    def _extremes(self, one: TaskFindings, number: int) -> str:
        result = _best_on_val([judged.result for judged in one.judged])
        said = result.predictions
        predicted = dict(zip(said.ids.tolist(), said.predicted.tolist(), strict=True))
        truth = dict(zip(said.ids.tolist(), said.truth.tolist(), strict=True))
        best, worst = extremes(said, number)
        key = "study_id" if one.task.by_study else "clip_id"
        looked_at = self._table.filter(chosen(one.task).expression)
        rows = {row[key]: row for row in reversed(looked_at.to_pylist())}

        def case(unit: str) -> Case:
            frames, fps = self._whole(rows[unit])
            return Case(unit, truth[unit], predicted[unit], frames, fps)

        title = f"{one.task.name}: best and worst predictions, {result.features}"
        return best_and_worst_section(
            title, [case(unit) for unit in best], [case(unit) for unit in worst], one.task.unit
        )

    def _whole(self, row: dict[str, Any]) -> tuple[NDArray[np.uint8], float]:
        """A video from its first frame on, all of its picture, and its rate."""
        number, fps = min(row["num_frames"], _MAX_FRAMES), row["native_fps"]
        clip = ClipConfig(num_frames=number, fps=fps, size=_SIDE)
        how = FeatureConfig(windows=1, placement="contiguous", frame="letterbox")
        return load_clips(row, clip, how, self._read)[0], fps

    def _attention(self, sources: Mapping[str, Source]) -> str:
        """Of the encoders that have our architecture; the others are left out."""
        found = ""
        picked = pick(self._table["clip_id"].to_pylist(), self._config.attention, seed=2)
        rows = with_clips(self._table, picked).to_pylist()
        for name, source in sources.items() if picked else ():
            encoder = source.load()
            if not isinstance(encoder, NetworkEncoder) or not isinstance(
                encoder.network, OurNetwork
            ):
                continue
            clips = [
                Clip(row["clip_id"], load_view(row, encoder.clip, self._read), encoder.clip.fps)
                for row in rows
            ]
            depth, named = len(encoder.network.encoder.blocks), self._config.attention_layers
            layers = named or sorted({0, depth // 2, depth - 1})
            heads: tuple[Head, ...] = self._config.attention_heads or ("mean",)
            found += attention_section(name, encoder.network.encoder, clips, layers, heads)
        return found


def _best_on_val(results: Sequence[ProbeResult]) -> ProbeResult:
    return max(results, key=lambda r: goodness(r.task.kind, r.val[HEADLINE[r.task.kind]]))
