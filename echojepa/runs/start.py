"""How a run begins. Three ways and no flags to juggle:

    resume      automatic, when the run folder holds a valid checkpoint: everything goes on
    fork_from   another run's whole state and data cursor, under this run's own schedules
    init_from   weights only: an exported encoder, or the weights of a checkpoint

Resume beats the other two, so that the same command can be run again after any interruption.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from echojepa.errors import CheckpointError
from echojepa.models.encoder import VideoEncoder
from echojepa.models.weights import (
    fill,
    is_encoder_folder,
    load_encoder_weights,
    read_companions,
    read_config,
)
from echojepa.objectives.objective import Facts
from echojepa.runs.checkpoint import newest_valid, read_state, resolve
from echojepa.runs.folder import RunFolder
from echojepa.runs.shards import ShardReader, reshard, without
from echojepa.train.engine import Engine
from echojepa.train.step import LoopState


@dataclass(frozen=True)
class Start:
    """The decision, made by rank 0 and broadcast."""

    kind: Literal["fresh", "resume", "fork", "init"]
    source: Path | None
    """The checkpoint or encoder folder everything is read from."""
    state: LoopState

    def describe(self) -> str:
        """For the record of attempts: the kind, and the folder's name."""
        return self.kind if self.source is None else f"{self.kind} {self.source.name}"


def choose_start(
    folder: RunFolder, fork_from: str | None, init_from: str | None, seed: int
) -> Start:
    """Decide how the run begins; records damaged checkpoints that were passed over.

    A fork with the `seed` of its source goes on in the source's order, seed changes included.

    Raises:
        CheckpointError: `fork_from` or `init_from` names nothing usable.
    """
    found, rejected = newest_valid(folder.checkpoints)
    for reason in rejected:
        folder.event("damaged_checkpoint", -1, reason=reason)
    if found is not None:
        return Start("resume", found, LoopState(**read_state(found)["loop"]))
    if fork_from is not None:
        source = resolve(Path(fork_from))
        saved = read_state(source)
        state = LoopState(**saved["loop"])
        origin = state.origin + state.step * saved["config"]["loop"]["global_batch"]
        same = saved["config"]["seed"] == seed
        changes = tuple(c for c in saved["seed_changes"] if c <= origin) if same else ()
        forked = LoopState(origin=origin, num_applied=state.num_applied, inherited_changes=changes)
        return Start("fork", source, forked)
    if init_from is not None:
        path = Path(init_from)
        source = path if is_encoder_folder(path) else resolve(path)
        return Start("init", source, LoopState())
    return Start("fresh", None, LoopState())


def initialise_weights(module: nn.Module, facts: Facts, start: Start) -> None:
    """Before partitioning: fill the module's weights for an `init` start.

    A checkpoint fills every parameter but those that are frozen. An encoder folder fills what it
    holds: the encoder that the objective exports; the online encoder, where that is another one,
    from the folder's own online encoder or else from the same weights; and the predictor, which
    stays new if there is none.

    Raises:
        CheckpointError: another architecture.
    """
    if start.kind != "init" or start.source is None:
        return
    if is_encoder_folder(start.source):
        _fill_from_folder(module, facts, start.source)
        return
    with ShardReader(start.source) as reader, torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.startswith(facts.frozen):
                continue
            found = reader.shapes.get(f"weight/{name}")
            if found != tuple(parameter.shape):
                raise CheckpointError(
                    f"the checkpoint is of another architecture: {name} is {found}, "
                    f"not {tuple(parameter.shape)}",
                    "Name a checkpoint of the same model in init_from.",
                    str(start.source),
                )
            parameter.copy_(reader.whole(f"weight/{name}"))


def _fill_from_folder(module: nn.Module, facts: Facts, folder: Path) -> None:
    exported = _part(module, facts.exported)
    assert isinstance(exported, VideoEncoder)
    wanted, found = exported.config, read_config(folder)[0]
    for name in ("num_heads", "rotary"):  # what the shapes of weights don't tell
        if getattr(wanted, name) != getattr(found, name):
            raise CheckpointError(
                f"the weights want {name} {getattr(found, name)}, not {getattr(wanted, name)}",
                "Give the run the encoder config these weights were trained with.",
                str(folder),
            )
    load_encoder_weights(exported, folder)
    companions = read_companions(folder)
    if facts.online != facts.exported:
        if companions is None or companions.online is None:
            load_encoder_weights(_part(module, facts.online), folder)
        else:
            fill(_part(module, facts.online), companions.online, folder)
    if facts.predictor is not None and companions is not None:
        fill(_part(module, facts.predictor), companions.predictor, folder)


def _part(module: nn.Module, prefix: str) -> nn.Module:
    """The sub-module whose parameters have this prefix."""
    return module.get_submodule(prefix.rstrip("."))


def load_state(engine: Engine, facts: Facts, start: Start) -> None:
    """After partitioning: set weights, moments and averages for a `resume` or `fork` start.

    What is frozen stays what the objective has filled it with.
    """
    if start.kind not in ("resume", "fork") or start.source is None:
        return
    with ShardReader(start.source) as reader:
        engine.load_shards(
            reshard(reader, without(engine.shards(), facts.frozen)), start.state.num_applied
        )
