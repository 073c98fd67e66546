"""Evaluation, assembled: frozen features in, fitted probes, tables and a report out.

    rows of a manifest -> features on disk -> probes, task by task -> suites -> tables, page

`evaluate(config, executor)` needs no cluster; `launch.evaluate` gives it one.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from echojepa.config import FolderName, fingerprint, to_yaml
from echojepa.data.corrupt import CorruptionSuite
from echojepa.data.manifest.file import manifest_fingerprint, scan_manifest
from echojepa.data.manifest.schema import SPLITS
from echojepa.encoders.kinds import AnyEncoder
from echojepa.encoders.source import Source
from echojepa.errors import StorageError
from echojepa.pictures.evaluation import Page, PageConfig
from echojepa.pictures.report import write_report
from echojepa.probes.examples import Material, examples_of
from echojepa.probes.extraction import Executor, ExtractConfig, extract
from echojepa.probes.features import Worsening
from echojepa.probes.fitting import (
    BASELINE,
    AnyProbe,
    Judged,
    ProbeResult,
    fit_baseline,
    fit_probe,
    judge,
)
from echojepa.probes.leaks import Overlap, note_reading, pretraining_of
from echojepa.probes.linear import LinearConfig
from echojepa.probes.probe_file import save_probe
from echojepa.probes.store import Features
from echojepa.probes.suites.benchmark_files import BenchmarkFile, write_benchmark_file
from echojepa.probes.suites.findings import Findings, TaskFindings, write_findings
from echojepa.probes.suites.label_efficiency import label_curve
from echojepa.probes.suites.robustness import CLEAN, severity_points
from echojepa.probes.suites.transfer import OtherPatients, transferred
from echojepa.probes.tasks import (
    Labels,
    Task,
    labelled_rows,
    read_labelled,
    require_labels,
    usable,
    with_clips,
)
from echojepa.runs.frozen import compared, run_facts


class EvaluateConfig(ExtractConfig):
    """What to evaluate, and on what."""

    command = "evaluate"

    encoders: dict[FolderName, AnyEncoder] = Field(min_length=1)
    """Frozen encoders to compare, each under a name of its own."""
    twin_seed: int | None = Field(0, ge=0)
    """Every encoder with weights from a file stands beside its twin, whose weights are drawn from
    this seed; null leaves the twins out."""
    rank_checkpoints_of: str | None = None
    """Also compare all checkpoints that are left of this run. Which is best, validation says."""
    manifest: str
    """Path of `manifest.parquet`, with the labels of the tasks."""
    out: str
    """Folder for results, predictions, fitted probes, features and report.html."""
    tasks: tuple[Task, ...]
    """What to predict from the features, each task under a name of its own."""
    probes: dict[FolderName, AnyProbe] = Field({"linear": LinearConfig()}, min_length=1)
    """What is fitted on the features, each under a name of its own."""
    label_shares: tuple[float, ...] = ()
    """Also fit the probes on so small parts of the training patients, each drawn three times."""
    robustness: CorruptionSuite | None = None
    """Also judge the probes on corrupted videos of the test split."""
    transfers: dict[str, str] = Field(default_factory=dict)
    """Also judge the probes on the test splits of these manifests, each under a name of its own."""
    cardiobench: tuple[BenchmarkFile, ...] = ()
    """Files of predictions for the public benchmark."""
    overlap: Overlap = "stop"
    """What follows if an encoder was pretrained on clips of test patients, or a probe fitted on
    those of a transfer: no result, or one that says so in its results and on its page."""
    groups: tuple[str, ...] = ("vendor", "population", "sex", "age_band")
    """Text columns by whose values every result is told once more; those that there are."""
    page: PageConfig = PageConfig()
    """What the report shows beside tables and plots."""
    run_dir: str | None = None
    """A pretraining run whose curves and masks go into the report."""

    @model_validator(mode="after")
    def _named_tasks(self) -> EvaluateConfig:
        names = [task.name for task in self.tasks]
        if not names or len(set(names)) < len(names):
            raise ValueError("at least one task is needed, each with a name of its own")
        if not all(0 < share <= 1 for share in self.label_shares):
            raise ValueError(f"label_shares {self.label_shares} are not above 0 and up to 1")
        return self


def rows_to_encode(config: EvaluateConfig) -> pa.Table:
    """Every manifest row that some task uses, with absolute URIs.

    Raises:
        ManifestError: a task's label is missing or has no clip in a split.
    """
    keys = [spec.key for spec in config.cardiobench]
    table = read_labelled(config.manifest, config.tasks, (*config.groups, *keys))
    for task in config.tasks:
        labelled_rows(table, task)
    return table.sort_by("clip_id")  # so that results do not depend on the manifest's order


def evaluate(config: EvaluateConfig, executor: Executor) -> list[ProbeResult]:
    """Fit all probes, write results, predictions and the report; returns the results.

    Raises:
        UserError: as `find`.
        IncompleteError: something failed; everything else is written.
    """
    findings = find(config, executor)
    findings.raise_if_incomplete(config.out)
    return findings.results


def find(config: EvaluateConfig, executor: Executor) -> Findings:
    """The same; returns all that was found, and what failed of it.

    What fails of one task, encoder or suite costs the others nothing.

    Raises:
        ManifestError: the manifest lacks what the tasks need, or an encoder knows test patients.
        CheckpointError: what is named as an encoder is none.
        ConfigError: two encoders would have the same name.
        StorageError: `out` cannot be written.
    """
    run = run_facts(config.run_dir)
    evaluation = _Evaluation(config, executor)
    findings = evaluation.findings
    for task in config.tasks:
        with findings.noting(f"task {task.name}"):
            evaluation.judge(task)
    if not findings.results:
        raise next(iter(findings.failed.values()))
    evaluation.suites()
    out = Path(config.out)
    try:
        num_reads = note_reading(out, fingerprint(config))
        facts = {
            "manifest_fingerprint": manifest_fingerprint(config.manifest),
            "num_test_reads": num_reads,
        }
        write_findings(findings, out, facts)
        (out / "config.yaml").write_text(to_yaml(config))
        page = Page(findings, evaluation.table, config.read, config.page)
        coloured = ("view", *config.groups, *(task.label for task in config.tasks))
        report = page.report(evaluation.trained(), coloured, num_reads, run)
        write_report(report, out / "report.html")
    except OSError as error:
        raise StorageError(
            f"results cannot be written: {error.strerror}", "Choose another `out`.", config.out
        ) from None
    return findings


class _Evaluation:
    """One evaluation, step by step."""

    def __init__(self, config: EvaluateConfig, executor: Executor) -> None:
        self._config = config
        self._executor = executor
        self._out = Path(config.out)
        self.table = rows_to_encode(config)
        try:
            self._out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"the folder cannot be made: {error.strerror}", "Choose another `out`.", config.out
            ) from None
        self._sources = compared(
            config.encoders, config.twin_seed, config.rank_checkpoints_of, self._out / "encoders"
        )
        known = {n: pretraining_of(s, self.table, config.overlap) for n, s in self._sources.items()}
        self.findings = Findings(known)
        self.findings.features = self._extract(self.table)

    def _extract(self, rows: pa.Table, worsening: Worsening | None = None) -> dict[str, Features]:
        """Features by encoder, of those that can be used.

        Raises:
            UserError: none of them can.
        """
        folder = self._out / "features"
        found = extract(rows, self._sources, self._config, folder, self._executor, worsening)
        for name, error in found.failed.items():
            self.findings.failed[f"encoder {name}"] = error
        if not found.stores:
            raise next(iter(found.failed.values()))
        return {name: store.read() for name, store in found.stores.items()}

    def trained(self) -> dict[str, Source]:
        """Encoders with features whose weights are not random."""
        there = self.findings.features
        return {n: s for n, s in self._sources.items() if n in there and not s.untrained}

    def judge(self, task: Task) -> None:
        """All probes of one task on all features, and what few labels make of them."""
        config, features = self._config, self.findings.features
        readable = set.intersection(*(found.readable() for found in features.values()))
        rows = with_clips(labelled_rows(self.table, task), readable)
        require_labels(rows, task, SPLITS)
        examples = examples_of(rows, task, readable, config.groups)
        materials = {name: Material(examples, found) for name, found in features.items()}
        judged: list[Judged] = []
        for encoder, material in materials.items():
            for probe in config.probes:
                with self.findings.noting(f"task {task.name}, {self._name(encoder, probe)}"):
                    judged.append(self._fit(encoder, probe, material, examples.labels))
                    self._few_labels(judged[-1], material)
        if not judged:
            return
        baseline = fit_baseline(examples.labels)
        worth = judge(BASELINE, baseline, next(iter(materials.values())), examples.labels)
        self.findings.tasks[task.name] = TaskFindings(examples, judged, baseline, worth)

    def _name(self, encoder: str, probe: str) -> str:
        """Of results: whose features, and by which probe if there are several."""
        return encoder if len(self._config.probes) == 1 else f"{encoder}, {probe}"

    def _fit(self, encoder: str, probe_name: str, material: Material, labels: Labels) -> Judged:
        """One probe on the features of one encoder; saved."""
        config, name = self._config.probes[probe_name], self._name(encoder, probe_name)
        probe = fit_probe(config, material, labels)
        result = judge(name, probe, material, labels)
        judged = Judged(name, encoder, probe, config, labels, result)
        folder = self._out / "probes" / labels.task.name / name
        save_probe(folder, judged, self._sources[encoder], self._config)
        return judged

    def _few_labels(self, one: Judged, material: Material) -> None:
        """The same probe, fitted on few labels."""

        def fitted(labels: Labels) -> ProbeResult:
            return judge(one.name, fit_probe(one.config, material, labels), material, labels)

        self.findings.label_curve += label_curve(one.labels, self._config.label_shares, fitted)

    def suites(self) -> None:
        """Corrupted videos, and other people's patients."""
        config = self._config
        if config.robustness is not None:
            with self.findings.noting("robustness"):
                self._corrupt(config.robustness)
        for name, manifest in config.transfers.items():
            with self.findings.noting(f"transfer {name}"):
                self._transfer(name, manifest)
        for spec in config.cardiobench:
            with self.findings.noting(f"CardioBench {spec.path}"):
                found, folder = self.findings, self._out / "cardiobench"
                write_benchmark_file(spec, found.tasks, found.features, self.table, folder)

    def _corrupt(self, suite: CorruptionSuite) -> None:
        rows = self.table.filter(pc.equal(self.table["split"], "test"))
        found = {}
        if suite.control is None:
            found[CLEAN] = self.findings.features
        else:
            found[CLEAN] = self._extract(rows, Worsening(corruption=suite.control, reencode=True))
        for preset, step, corruption in suite.conditions:
            worse = Worsening(corruption=corruption, reencode=suite.reencode)
            found[f"{preset} {step}"] = self._extract(rows, worse)
        for one in self.findings.tasks.values():
            of_task = rows.filter(usable(one.task, rows.schema).expression)
            with self.findings.noting(f"robustness, task {one.task.name}"):
                points = severity_points(one.judged, one.baseline, of_task, found)
                self.findings.severity += points

    def _transfer(self, name: str, manifest: str) -> None:
        config, there = self._config, []
        schema = next(scan_manifest(manifest)).schema
        for one in self.findings.tasks.values():
            with self.findings.noting(f"transfer {name}, task {one.task.name}"):
                usable(one.task, schema)  # its label is there
                there.append(one)
        if not there:
            return
        rows = read_labelled(manifest, [one.task for one in there], config.groups)
        known = {n: pretraining_of(s, rows, config.overlap) for n, s in self._sources.items()}
        features = self._extract(rows.filter(pc.equal(rows["split"], "test")))
        others = OtherPatients(name, rows, features, known)
        for one in there:
            with self.findings.noting(f"transfer {name}, task {one.task.name}"):
                found = transferred(others, one.judged, config.groups, config.overlap)
                self.findings.transfers += found
