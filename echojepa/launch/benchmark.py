"""A benchmark: arms and seeds pretrained at equal cost, one evaluation of all, one table, one page.

    plan(job)      what would be run
    launch(job)    all of it; the same command goes on where it was interrupted

Runs lie in OUT/runs/ARM-SEED and are ordinary ones. An arm that fails does not cost the others.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from echojepa.benchmark.board import Encoders, board_of
from echojepa.benchmark.config import REST, UntrainedArm
from echojepa.benchmark.held_out import cut_manifest
from echojepa.benchmark.matching import PlannedArm
from echojepa.benchmark.measures import measured
from echojepa.benchmark.order import SameOrder, clips_seen, same_order
from echojepa.benchmark.outcome import JSON, Outcome, write_files
from echojepa.benchmark.page import write_page
from echojepa.benchmark.runs import RunRecord, record_of
from echojepa.config import fingerprint, load, to_tree, validate
from echojepa.data.manifest.file import manifest_fingerprint
from echojepa.errors import ConfigError, IncompleteError, StorageError, UserError, first_line
from echojepa.launch import phantom
from echojepa.launch.benchmark_arms import ArmJobs, BenchmarkJob, Plan
from echojepa.launch.evaluate import EvaluateJob, find_on_ray
from echojepa.on_ray.connect import connected
from echojepa.on_ray.internals import TrainingFailedError
from echojepa.phantom import PhantomConfig
from echojepa.runs.folder import provenance, read_lines


def plan(job: BenchmarkJob) -> Plan:
    """What would be run; nothing is written. Raises `ConfigError`."""
    job = _absolute(job)
    return _Benchmark(job, Path(job.out)).plan()


def launch(job: BenchmarkJob) -> Path:
    """Run the benchmark; returns the folder with its results.

    Raises:
        UserError: a config is wrong, the folder cannot be written, nothing could be judged.
        IncompleteError: some arm or part failed; everything else is written.
    """
    job = _absolute(job)
    out = Path(job.out)
    if _is_finished(job, out):
        return out
    benchmark = _Benchmark(job, out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"the folder cannot be made: {error.strerror}", "Choose another `out`.", job.out
        ) from None
    with connected(benchmark.cluster):
        benchmark.film()
        benchmark.pretrain()
        benchmark.compare()
        outcome = benchmark.judge()
    try:
        write_page(outcome, out / "benchmark.html")
        write_files(outcome, out)
    except OSError as error:
        raise StorageError(
            f"results cannot be written: {error.strerror}", "Free the folder.", job.out
        ) from None
    if outcome.failed:
        named = "; ".join(f"{what}: {why}" for what, why in outcome.failed.items())
        raise IncompleteError(
            f"failed: {named}", "Everything else is written; the same command tries again.", job.out
        )
    return out


class _Benchmark:
    """One benchmark, step by step."""

    def __init__(self, job: BenchmarkJob, out: Path) -> None:
        """Check all configs before anything runs; raises `ConfigError`."""
        self._job, self._out = job, out
        self._began = time.monotonic()
        self._console = Console(stderr=True)
        self._arms = ArmJobs(job, _manifest(job))
        self._planned: list[PlannedArm] = []
        self._runs: dict[tuple[str, int], RunRecord] = {}
        self._orders: dict[int, SameOrder] = {}
        self._failed: dict[str, str] = {}
        self.cluster = self._arms.base(job.reference, job.seeds[0]).cluster
        self._evaluation({})
        if job.phantom is not None:
            self._hearts = load(job.phantom, job.phantom_settings, PhantomConfig)
        if job.match != "wall_clock":
            self.plan()

    def plan(self) -> Plan:
        """The length of every arm."""
        return self._arms.plan()

    def film(self) -> None:
        """Write the phantom, or what is missing of it, and the manifests of who is held out."""
        if self._job.phantom is not None:
            self._console.rule("phantom hearts, filmed")
            phantom.launch(self._hearts, self._out / "phantom", self.cluster)
        if self._job.held_out:
            cut_manifest(_source(self._job), self._job.held_out, self._out / "manifests")

    def pretrain(self) -> None:
        """All arms and seeds, every arm after its target."""
        if self._job.match == "wall_clock":
            self._console.rule("seconds of a step, measured")
            self._arms.measure()
        plan = self.plan()
        for arm in plan.arms:
            with self._noting(f"search of {arm.name}"):
                self._arms.tune(arm)
                arm = self._arms.replanned(plan, arm, self._planned)
            self._planned.append(arm)
            for seed in self._job.seeds:
                self._run(arm, seed)

    def _run(self, arm: PlannedArm, seed: int) -> None:
        what = f"{arm.name}, seed {seed}"
        if f"search of {arm.name}" in self._failed:
            return
        if arm.target is not None and (arm.target.name, seed) not in self._runs:
            self._failed[what] = f"its target {arm.target.name}, seed {seed}, has no encoder"
            return
        self._console.rule(f"{what}: {arm.num_steps} steps")
        with self._noting(what):
            self._arms.run(arm, seed)
            self._runs[arm.name, seed] = record_of(self._arms.run_dir(arm.name, seed))

    def compare(self) -> None:
        """Audit every run, and compare what the arms of a seed have seen."""
        for seed in self._job.seeds:
            seen: dict[str, list[str]] = {}
            for arm in (name for name, of_seed in self._runs if of_seed == seed):
                with self._noting(f"audit of {arm}, seed {seed}"):
                    seen[arm] = clips_seen(self._arms.run_dir(arm, seed))
            if seen:
                self._orders[seed] = same_order(seen)
                if self._orders[seed].differing:
                    self._failed[f"equal data, seed {seed}"] = str(self._orders[seed])

    def judge(self) -> Outcome:
        """One evaluation of all encoders there are.

        Raises:
            IncompleteError: there is none.
            UserError: nothing could be judged.
        """
        self._console.rule("what are the frozen encoders worth?")
        sources, names = self._sources()
        if not self._runs:
            named = "; ".join(f"{what}: {why}" for what, why in self._failed.items())
            raise IncompleteError(f"no arm could be pretrained: {named}", "", self._job.out)
        findings = find_on_ray(self._evaluation(sources))
        self._failed |= {f"evaluation, {what}": str(e) for what, e in findings.failed.items()}
        return Outcome(
            config=self._job,
            plan=self._planned,
            runs=self._runs,
            orders=self._orders,
            encoders=names,
            findings=findings,
            board=board_of(measured(findings), names),
            failed=self._failed,
            facts=self._facts(),
        )

    def _sources(self) -> tuple[dict[str, Any], Encoders]:
        """Encoders as an evaluation's config names them, and which arm and seed each one is."""
        sources: dict[str, Any] = {}
        names: dict[str, tuple[str, int]] = {}
        for arm in self._job.shown:
            untrained = isinstance(self._job.arms[arm], UntrainedArm)
            for seed in self._job.seeds:
                name = f"{arm}, seed {seed}"
                if untrained:
                    base = self._arms.base(arm, seed)
                    sources[name] = {
                        "kind": "untrained",
                        "encoder": to_tree(base.model.encoder),
                        "clip": to_tree(base.data.clip),
                        "random_seed": seed,
                    }
                elif (arm, seed) in self._runs:
                    path = self._arms.run_dir(arm, seed) / "encoder"
                    sources[name] = {"kind": "ours", "path": str(path)}
                names[name] = (arm, seed)
        return sources, names

    def _evaluation(self, sources: dict[str, Any]) -> EvaluateJob:
        """The evaluation with other encoders; without any, those of its config stay."""
        settings = [
            *self._job.evaluate_settings,
            "encoders.pretrained={kind: ours, path: replaced}",
            f"out={json.dumps(str(self._out / 'evaluation'))}",
            f"manifest={json.dumps(_manifest(self._job))}",
            "twin_seed=null",
            *(
                f"transfers.{name}={json.dumps(str(self._out / 'manifests' / f'{name}.parquet'))}"
                for name in self._job.held_out
            ),
        ]
        job = load(self._job.evaluate, settings, EvaluateJob)
        if len(job.probes) > 1:
            raise ConfigError(
                "a benchmark judges with one probe", "Leave one in `probes`.", self._job.evaluate
            )
        tree = to_tree(job)
        return validate({**tree, "encoders": sources or tree["encoders"]}, EvaluateJob, "arms")

    def _facts(self) -> dict[str, Any]:
        known = provenance(self._job, manifest_fingerprint(_manifest(self._job)))
        del known["config"]
        ledger = self._out / "evaluation" / "ledger.jsonl"
        return {
            **known,
            "processor": _processor(),
            "num_test_reads": len(read_lines(ledger)),
            "hours_of_runs": round(sum(run.seconds for run in self._runs.values()) / 3600, 3),
            "hours_of_this_call": round((time.monotonic() - self._began) / 3600, 3),
        }

    @contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        """What fails inside is noted under this name, and costs the others nothing."""
        try:
            yield
        except (UserError, TrainingFailedError) as error:
            self._failed[what] = first_line(error)
            self._console.print(f"failed: {what}: {first_line(error)}", markup=False)


def _absolute(job: BenchmarkJob) -> BenchmarkJob:
    return job.model_copy(update={"out": str(Path(job.out).resolve())})


def _source(job: BenchmarkJob) -> str:
    """The manifest of all patients: where it is, or will be."""
    own = Path(job.out) / "phantom" / "manifest.parquet"
    return str(own if job.manifest is None else Path(job.manifest).resolve())


def _manifest(job: BenchmarkJob) -> str:
    """The manifest that everything learns from."""
    rest = Path(job.out) / "manifests" / f"{REST}.parquet"
    return str(rest) if job.held_out else _source(job)


def _is_finished(job: BenchmarkJob, out: Path) -> bool:
    """Whether the folder holds the whole result of this very benchmark."""
    file = out / JSON
    if not file.is_file():
        return False
    known = json.loads(file.read_text())
    return known["config_hash"] == fingerprint(job) and not known["failed"]


def _processor() -> str:
    """What the runs were computed on, in words."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor() or platform.machine()
