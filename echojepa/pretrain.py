"""READ THIS FIRST: pretraining, assembled.

`pretrain(config, worker)` runs in every training process. It opens the clip table, decides how the
run begins, builds model and engine, and hands everything to the loop (`echojepa.train.loop`). It
knows neither Ray nor DeepSpeed; they are behind the `Worker`.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from echojepa.config import Strict, changeable
from echojepa.data.block import DataConfig
from echojepa.data.manifest.patients import FILE as PATIENTS_FILE
from echojepa.data.manifest.patients import PatientDigests
from echojepa.data.problem import raise_if_storage_failed
from echojepa.data.stream import StreamShape, stream_shape
from echojepa.models.attention import Grid
from echojepa.objectives.kinds import DEFAULT, AnyObjective
from echojepa.objectives.objective import ModelConfig, Objective
from echojepa.probes.online import OnlineProbe, OnlineProbeConfig
from echojepa.randomness import Seeds
from echojepa.runs import checkpoint
from echojepa.runs.export import describe, export_encoder
from echojepa.runs.folder import RunFolder, provenance
from echojepa.runs.mirror import Mirror
from echojepa.runs.monitor import MonitorConfig
from echojepa.runs.rollback import CollapseGuard, seeds_of
from echojepa.runs.saver import RunSaver
from echojepa.runs.start import Start, choose_start, initialise_weights, load_state
from echojepa.runs.watcher import Cadence, Probe, RunWatcher
from echojepa.train import collectives
from echojepa.train.engine import Engine, OptimizerConfig, at_batch
from echojepa.train.feed import Feed
from echojepa.train.loop import Loop, LoopConfig
from echojepa.train.record import SampleRecord
from echojepa.train.worker import Worker


class PretrainConfig(Strict):
    """One pretraining run."""

    command = "pretrain"

    run_dir: str = changeable()
    """Folder of the run, on storage that every node sees. The same folder resumes the run."""
    mirror: str | None = changeable(None)
    """URL (s3://, gs://) or folder that gets a copy of every checkpoint, in the background. A run
    whose folder is lost goes on from there."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Of weights, order, windows, crops and masks."""
    data: DataConfig
    """Where clips come from."""
    model: ModelConfig
    """The networks."""
    objective: AnyObjective = DEFAULT
    """What they learn."""
    optimizer: OptimizerConfig
    """How they learn it."""
    loop: LoopConfig
    """For how long, and what happens on the way."""
    fork_from: str | None = None
    """Run folder or checkpoint whose whole state and data cursor this run continues."""
    init_from: str | None = None
    """Encoder folder, run folder or checkpoint whose weights this run starts from."""
    monitor: MonitorConfig = changeable(MonitorConfig())
    """What counts as a collapse, and what follows."""
    probe: OnlineProbeConfig | None = changeable(None)
    """A small probe on the frozen encoder during training; see loop.probe_every_steps."""

    @model_validator(mode="after")
    def _consistent(self) -> PretrainConfig:
        if self.fork_from and self.init_from:
            raise ValueError("fork_from and init_from exclude each other")
        if self.probe is None and self.loop.probe_every_steps is not None:
            raise ValueError("loop.probe_every_steps needs a `probe` section")
        if self.mirror and "@" in self.mirror.partition("://")[2].partition("/")[0]:
            raise ValueError("mirror must not hold credentials; give them in the environment")
        self.objective.check(self.model)
        self.grid()
        return self

    def grid(self) -> Grid:
        """Token grid of a training clip."""
        clip = self.data.clip
        return self.model.encoder.grid(clip.num_frames, clip.size, clip.size)

    def bound(self) -> Self:
        """This config, with what its objective names looked at; see `ObjectiveConfig.bound`.

        A run folder is created with the result, so that a later start can tell what has changed.
        """
        self.objective.check_data(self.data)
        return self.model_copy(update={"objective": self.objective.bound(self.model)})

    def build_objective(self, seeds: Seeds) -> Objective:
        """The objective, without a module yet; raises `ConfigError` if it does not fit the grid."""
        return self.objective.build(self.model, self.grid(), seeds, self.data)


def pretrain(config: PretrainConfig, worker: Worker) -> dict[str, float]:
    """Train, from wherever the run stands to its end; returns the last logged metrics.

    Raises:
        UserError: of the kind that names the bad input (config, manifest, checkpoint, storage).
    """
    folder = RunFolder(config.run_dir)
    clips = config.data.clips()
    folder.check_manifest(clips.fingerprint)
    beginning = _begin(config, folder, worker)
    start, seeds = beginning.start, beginning.seeds
    objective = config.build_objective(seeds)
    shape = cut_batch(config, worker.world_size, start.state.origin)
    module = initial_module(config, objective, start)
    engine = worker.engine(module, objective.facts.averages, config.optimizer, shape)
    load_state(engine, objective.facts, start)
    feed = Feed(
        open_segment=lambda s: worker.open_segment(config.data, seeds, shape, s),
        shape=shape,
        rank=worker.rank,
        clips=clips,
        seeds=seeds,
        start=start.state.step,
        stop=config.loop.last_step,
        segment_steps=config.data.segment_steps,
    )
    probe = _online_probe(config, folder, objective, engine, worker)
    cadence = Cadence.of(config.loop)
    watcher = RunWatcher(folder, objective, cadence, worker.report, probe, start.state.step)
    guard = _guard(config, folder, objective, start)
    record = SampleRecord(folder.samples, beginning.attempt, worker.rank)
    saver = _saver(config, folder, objective, engine, guard, beginning)
    with record, closing(watcher), saver:
        metrics = Loop(
            engine=engine,
            objective=objective,
            config=config.loop,
            optimizer=beginning.optimizer,
            max_bad_fraction=config.data.max_bad_fraction,
            state=start.state,
            record=record,
            watcher=watcher,
            saver=saver,
            judge=guard,
            worker=worker,
        ).run(feed)
        if worker.rank == 0 and start.state.step == config.loop.num_steps:
            last = checkpoint.folder_of(folder.checkpoints, start.state.step)
            export_encoder(last, folder.encoder)
    return metrics


def _guard(
    config: PretrainConfig, folder: RunFolder, objective: Objective, start: Start
) -> CollapseGuard:
    guarded = objective.facts.guarded
    return CollapseGuard(config.monitor, folder, guarded, start.state, config.loop)


def _saver(
    config: PretrainConfig,
    folder: RunFolder,
    objective: Objective,
    engine: Engine,
    guard: CollapseGuard,
    beginning: Beginning,
) -> RunSaver:
    origin: dict[str, Any] = provenance(config, folder.identity()["manifest_fingerprint"])
    origin["seed_changes"] = list(beginning.seeds.changes)
    origin["objective"] = describe(objective.facts)
    mirror = None
    if config.mirror is not None and collectives.world().rank == 0:
        mirror = Mirror(config.mirror, folder, beginning.start.state.step)
    return RunSaver(
        config.loop,
        folder,
        engine,
        guard,
        beginning.attempt,
        origin,
        objective.facts.frozen,
        mirror,
    )


class Beginning(NamedTuple):
    """What every rank must know before it begins."""

    start: Start
    attempt: int
    seeds: Seeds
    optimizer: OptimizerConfig
    """With the rates of this run's own batch, after its rollbacks."""


def _begin(config: PretrainConfig, folder: RunFolder, worker: Worker) -> Beginning:
    """Rank 0 decides how the run begins and numbers the attempt; every rank learns it."""
    decided = None
    if worker.rank == 0:
        _note_patients(config, folder)
        start = choose_start(folder, config.fork_from, config.init_from, config.seed)
        number = folder.begin_attempt(
            start.state.step,
            origin=start.state.origin,
            inherited_changes=start.state.inherited_changes,
            world_size=worker.world_size,
            source=start.describe(),
            rollbacks=len(folder.interventions()),
        )
        optimizer = at_batch(config.optimizer, config.loop.global_batch)
        rollbacks = len(folder.interventions())
        slower = config.monitor.lr_factor**rollbacks
        optimizer = optimizer.model_copy(update={"lr": optimizer.lr.times(slower)})
        if optimizer.lr != config.optimizer.lr:
            folder.event(
                "learning_rate_scaled",
                start.state.step,
                stated=config.optimizer.lr.peak,
                reference_batch=config.optimizer.lr_reference_batch,
                rollbacks=rollbacks,
                peak=optimizer.lr.peak,
            )
        decided = Beginning(start, number, seeds_of(folder, config.seed), optimizer)
    decided = collectives.broadcast(decided)
    assert decided is not None
    return decided


def _note_patients(config: PretrainConfig, folder: RunFolder) -> None:
    """Note whom this run will have seen, and whom the weights had that it begins with or learns of.

    Until there is a checkpoint, nothing binds a run to what an earlier start was told.
    """
    if (folder.path / PATIENTS_FILE).is_file() and any(folder.checkpoints.glob("step_*")):
        return
    seen = PatientDigests.of(config.data.manifest, config.data.where, config.data.mixture)
    begun_from = config.init_from or config.fork_from
    for source in (*filter(None, [begun_from]), *config.objective.sources()):
        seen = seen.and_of(PatientDigests.read(Path(source)))
    seen.write(folder.path)


def initial_module(config: PretrainConfig, objective: Objective, start: Start) -> nn.Module:
    """The whole module with its seeded (or given) initial weights, equal on every rank."""
    torch.manual_seed(config.seed)
    module = objective.module(getattr(torch, config.optimizer.precision))
    objective.complete(module)
    initialise_weights(module, objective.facts, start)
    return module


def _online_probe(
    config: PretrainConfig,
    folder: RunFolder,
    objective: Objective,
    engine: Engine,
    worker: Worker,
) -> Probe | None:
    """The probe, without the clips that some rank could not read; a collective call."""
    if config.probe is None or config.loop.probe_every_steps is None:
        return None
    probe = OnlineProbe(config.probe, config.data, objective.grid, collectives.world())
    problems = [p for part in collectives.gather(probe.problems) for p in part]
    raise_if_storage_failed(problem for _, problem in problems)
    if worker.rank == 0:
        folder.reject(problems)
    probe.leave_out([clip_id for clip_id, _ in problems])

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        output = engine.forward(pixels.to(engine.device))
        return output.features[objective.facts.exported_features]

    return lambda: probe(encode, collectives.gather)


def cut_batch(config: PretrainConfig, world_size: int, origin: int = 0) -> StreamShape:
    """How the global batch is cut for a number of workers.

    Raises:
        ConfigError: the objective does not work with the cut.
    """
    shape = stream_shape(
        config.loop.global_batch,
        config.optimizer.max_micro_batch,
        world_size,
        config.data.clip,
        origin,
        config.objective.clips_together,
    )
    config.objective.check_shape(shape)
    return shape
