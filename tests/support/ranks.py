"""Real process groups without Ray: n ranks on this machine, forked from a warm server.

Importing torch and DeepSpeed takes ten seconds; the fork server does it once per test session.
"""

from __future__ import annotations

import copy
import multiprocessing as mp
import os
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from echojepa.config import to_tree, validate
from echojepa.data.stream import StreamShape
from echojepa.pretrain import PretrainConfig, pretrain
from echojepa.runs.folder import RunFolder, read_lines
from echojepa.train.engine import Engine, OptimizerConfig
from echojepa.train.worker import LocalWorker

_TIMEOUT_SECONDS = 240


def run_ranks(function: Callable[..., Any], num_ranks: int, *args: Any) -> list[Any]:
    """Call `function(*args)` in every rank of a gloo group; returns the results in rank order."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(["deepspeed", "echojepa.train.zero_engine", "echojepa.pretrain"])
    with tempfile.TemporaryDirectory() as folder:
        pipes = [context.Pipe(duplex=False) for _ in range(num_ranks)]
        processes = [
            context.Process(
                target=_rank, args=(function, rank, num_ranks, folder, pipes[rank][1], args)
            )
            for rank in range(num_ranks)
        ]
        for process in processes:
            process.start()
        results = []
        for rank, (receiver, sender) in enumerate(pipes):
            sender.close()  # only the rank holds this end now: its death is the end of the file
            if not receiver.poll(_TIMEOUT_SECONDS):
                results.append((False, f"rank {rank} did not answer"))
                continue
            try:
                results.append(receiver.recv())
            except EOFError:
                results.append((False, f"rank {rank} died"))
        for process in processes:
            process.join(10)
            process.kill()
    failures = [message for ok, message in results if not ok]
    assert not failures, "\n".join(failures)
    return [value for _, value in results]


def _rank(
    function: Callable[..., Any], rank: int, world: int, folder: str, pipe: Any, args: Any
) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank))
    dist.init_process_group(
        "gloo", rank=rank, world_size=world, init_method=f"file://{folder}/store"
    )
    try:
        pipe.send((True, function(*args)))
    except BaseException:
        pipe.send((False, traceback.format_exc()))
        raise
    dist.barrier()
    dist.destroy_process_group()


class RankWorker(LocalWorker):
    """A rank with the ZeRO-3 engine that decodes for itself."""

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()

    def engine(
        self,
        module: nn.Module,
        averages: Mapping[str, str],
        config: OptimizerConfig,
        shape: StreamShape,
    ) -> Engine:
        from echojepa.train.zero_engine import ZeroEngine

        return ZeroEngine(module, averages, config, shape)


def pretrain_on_ranks(
    tree: dict[str, Any], num_ranks: int, model: type[PretrainConfig] = PretrainConfig
) -> list[float]:
    """Pretrain with ZeRO-3 on `num_ranks` processes; returns the loss of every logged step."""
    config = prepare(tree, model)
    run_ranks(_pretrain_rank, num_ranks, to_tree(config), model)
    return losses(tree)


def pretrain_plain(tree: dict[str, Any]) -> list[float]:
    """The same in this process with the plain engine."""
    pretrain(prepare(tree), LocalWorker())
    return losses(tree)


def prepare(tree: dict[str, Any], model: type[PretrainConfig] = PretrainConfig) -> PretrainConfig:
    """Validate a config and create its run folder, as a launcher does."""
    config = validate(tree, model, "test").bound()
    clips = config.data.clips()
    RunFolder(config.run_dir).create(config, clips.fingerprint)
    return config


def variant(tree: dict[str, Any], name: str) -> dict[str, Any]:
    """The same run in a folder of its own."""
    other = copy.deepcopy(tree)
    other["run_dir"] = f"{tree['run_dir']}_{name}"
    return other


def losses(tree: dict[str, Any]) -> list[float]:
    """Losses in the metrics of a run, the last of every step, in order of steps."""
    lines = read_lines(Path(tree["run_dir"]) / "metrics.jsonl")
    return [loss for _, loss in sorted({line["step"]: line["loss"] for line in lines}.items())]


def _pretrain_rank(tree: dict[str, Any], model: type[PretrainConfig]) -> None:
    pretrain(validate(tree, model, "test"), RankWorker())
