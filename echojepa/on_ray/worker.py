"""A training worker of Ray Train: how the loop reaches Ray Data, DeepSpeed and Ray Train."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import ray.train
import ray.train.collective
from torch import nn

from echojepa.data.block import Columns, DataConfig
from echojepa.data.stream import Segment, StreamShape
from echojepa.on_ray import stream
from echojepa.on_ray.connect import ClusterConfig
from echojepa.on_ray.drain import Drain
from echojepa.on_ray.heartbeat import Heartbeat
from echojepa.on_ray.resize import SaveRequest
from echojepa.randomness import Seeds
from echojepa.runs.folder import RunFolder
from echojepa.train import collectives
from echojepa.train.engine import Engine, OptimizerConfig
from echojepa.train.zero_engine import ZeroEngine

_HOLD_SECONDS = 20.0
"""How long a group that has saved waits for Ray Train to resize it."""


class RayWorker:
    """A Ray Train worker; see `train.worker.Worker`."""

    def __init__(self, run_dir: str, request: SaveRequest, cluster: ClusterConfig) -> None:
        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self._request = request
        limits = cluster.hang_seconds, cluster.first_step_seconds
        folder = RunFolder(run_dir)
        self._heartbeat = Heartbeat(folder, self.rank, *limits)
        self._drain = Drain(
            noted=lambda nodes, seconds: folder.event(
                "drain", -1, nodes=nodes, seconds_left=round(seconds, 1)
            )
        )
        self._run_id = f"{Path(run_dir).name}-{uuid.uuid4().hex}"

    def engine(
        self,
        module: nn.Module,
        averages: Mapping[str, str],
        config: OptimizerConfig,
        shape: StreamShape,
    ) -> Engine:
        """See `Worker`."""
        return ZeroEngine(module, averages, config, shape)

    def open_segment(
        self, data: DataConfig, seeds: Seeds, shape: StreamShape, segment: Segment
    ) -> Iterator[Columns]:
        """Rank 0 builds the pipeline; the iterators travel to the others by Ray Train."""
        iterators = None
        if self.rank == 0:
            iterators = stream.open_stream(data, seeds, shape, segment, self._run_id)
        iterators = ray.train.collective.broadcast_from_rank_zero(iterators)
        assert iterators is not None
        return stream.blocks_of(iterators[self.rank])

    def report(self, metrics: dict[str, float]) -> None:
        """See `Worker`."""
        ray.train.report(metrics)

    def beat(self) -> None:
        """See `Worker`."""
        self._heartbeat.beat()

    def save_requested(self) -> bool:
        """See `Worker`."""
        return self.rank == 0 and (self._drain.save_due() or self._request.is_open())

    def save_done(self) -> None:
        """Stands still if Ray Train stops the group now: what it did more would be lost."""
        hold = self._drain.saved()
        if self.rank == 0 and self._request.is_open():
            self._request.close()
            hold = max(hold, _HOLD_SECONDS)
        hold = collectives.broadcast(hold)
        if hold > 0:
            self._heartbeat.pause()
            time.sleep(hold)

    def finished(self) -> None:
        """See `Worker`."""
        self._heartbeat.pause()
