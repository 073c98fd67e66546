"""The DeepSpeed ZeRO-3 engine: parameters, gradients, moments and averages split over all ranks.

The only file that touches DeepSpeed. What it takes care of, each learnt the hard way:
clipping is always stated (absent means 1.0); no parameter stays gathered (threshold 0), or what is
written to shards would be seen one step late; weight decay groups are made before partitioning;
non-finite steps are dropped here, because stage 3 does so only for float16; restored master weights
are also copied into the shards that the forward pass gathers.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from echojepa.data.stream import StreamShape
from echojepa.objectives.objective import Output, twins
from echojepa.objectives.target import ema_update
from echojepa.train import device as device_choice
from echojepa.train.engine import (
    OptimizerConfig,
    Shard,
    Shards,
    fresh_adam_state,
    new_adamw,
    set_rates,
)
from echojepa.train.step import StepResult


class ZeroEngine:
    """ZeRO-3 over the default process group; see `Engine` for the methods."""

    def __init__(
        self,
        module: nn.Module,
        averages: Mapping[str, str],
        config: OptimizerConfig,
        shape: StreamShape,
    ) -> None:
        """Partition `module`, whose parameters are whole and equal on all ranks.

        Args:
            averages: as in `objectives.objective.Facts`.
            shape: how the global batch is cut over the ranks of the default process group.
        """
        self.device = device_choice.prepare_process()
        import deepspeed
        from deepspeed.utils import logger

        logger.setLevel(logging.WARNING)
        # None of DeepSpeed's compiled extras is used; left to itself it builds one at start-up,
        # which takes minutes and leaves a stale lock behind if the process is killed meanwhile.
        deepspeed.ops.__compatible_ops__ = {}
        deepspeed.init_distributed(
            dist_backend=device_choice.collective_backend(),
            auto_mpi_discovery=False,
            dist_init_required=False,
        )
        module.to(self.device)
        optimizer = new_adamw(module, config, self.device)
        # Before DeepSpeed partitions: afterwards every parameter has one dimension, so that decay
        # groups, whole shapes and exact float32 values must be taken here.
        self._shapes = {n: tuple(p.shape) for n, p in module.named_parameters()}
        exact = _own_parts(module)
        self._engine, _, _, _ = deepspeed.initialize(
            model=module,
            optimizer=optimizer,
            config=_settings(config, shape, self.device),
            dist_init_required=False,
        )
        self._parameters: dict[str, Any] = dict(self._engine.module.named_parameters())
        self._trainable = {n: p for n, p in self._parameters.items() if p.requires_grad}
        self._twins = twins(self._parameters, averages)
        self._zero = self._engine.optimizer
        fused = self.device.type == "cuda"
        for flat in self._zero.fp32_partitioned_groups_flat:
            self._zero.optimizer.state[flat] = fresh_adam_state(flat, step=0.0, fused=fused)
        self._averages = self._float32_averages()
        self.load_shards(exact, num_steps=0)  # DeepSpeed's masters come from rounded weights

    def forward(self, pixels: torch.Tensor, *drawn: list[torch.Tensor]) -> Output:
        """See `Engine`; the hooks of ZeRO may hand back a plain tuple."""
        return Output(*self._engine(pixels, *drawn))

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        """See `Engine`."""
        self._engine.set_gradient_accumulation_boundary(last)
        # DeepSpeed averages over ranks; the loss is already this rank's part of a sum.
        self._engine.backward(loss * dist.get_world_size(), scale_wrt_gas=False)

    def step(self, lr: float, weight_decay: float) -> StepResult:
        """See `Engine`."""
        # Every rank sees the same norm, so that all drop the step or none does.
        norm = self._gradient_norm()
        if not math.isfinite(norm):
            self.discard()
            return StepResult(False, norm)
        set_rates(self._zero.optimizer, lr, weight_decay)
        self._engine.step()
        return StepResult(True, norm)

    def discard(self) -> None:
        """See `Engine`."""
        self._zero.zero_grad()  # the next backward pass overwrites the accumulated shards

    def update_averages(self, momentum: float) -> None:
        """See `Engine`; every rank moves its own shards, without communication."""
        masters = self._masters()
        ema_update(((t, masters[self._twins[n]]) for n, t in self._averages.items()), momentum)
        self._publish_averages()

    def shards(self) -> Shards:
        """See `Engine`."""
        found = {f"weight/{n}": self._shard(n, data) for n, data in self._weights().items()}
        for name in self._trainable:
            for moment in ("exp_avg", "exp_avg_sq"):
                found[f"{moment}/{name}"] = self._shard(name, self._local(name, moment))
        return found

    def load_shards(self, shards: Shards, num_steps: int) -> None:
        """See `Engine`."""
        for name, parameter in self._parameters.items():
            weight = shards.get(f"weight/{name}")
            if weight is not None:
                if name in self._averages:
                    self._fill(self._averages[name], weight)
                if name in self._trainable:
                    self._fill(self._local(name, None), weight)
                # The forward pass gathers `ds_tensor`; without this line the first step after a
                # load would run on the weights from before it.
                self._fill(parameter.ds_tensor, weight)
            for moment in ("exp_avg", "exp_avg_sq"):
                if f"{moment}/{name}" in shards:
                    self._fill(self._local(name, moment), shards[f"{moment}/{name}"])
        self._publish_averages()
        for state in self._zero.optimizer.state.values():
            state["step"].fill_(num_steps)

    def model_state_bytes(self) -> int:
        """Bytes this rank holds for weights, masters, moments and averages."""
        tensors = [p.ds_tensor for p in self._parameters.values()]
        tensors += list(self._zero.fp32_partitioned_groups_flat)
        for state in self._zero.optimizer.state.values():
            tensors += [state["exp_avg"], state["exp_avg_sq"]]
        tensors += list(self._averages.values())
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        return sum(storages.values())

    def _local(self, name: str, moment: str | None) -> torch.Tensor:
        """This rank's padded float32 master (moment None) or moment of a trainable parameter."""
        from deepspeed.utils import safe_get_local_fp32_param, safe_get_local_optimizer_state

        parameter = self._trainable[name]
        if moment is None:
            master: torch.Tensor = safe_get_local_fp32_param(parameter)
            return master
        state: torch.Tensor = safe_get_local_optimizer_state(parameter, moment)
        return state

    def _masters(self) -> dict[str, torch.Tensor]:
        return {name: self._local(name, None) for name in self._trainable}

    def _weights(self) -> dict[str, torch.Tensor]:
        """Padded float32 weights of every parameter: masters, averages, and what is frozen."""
        frozen = {n: p.ds_tensor.float() for n, p in self._parameters.items()}
        return {**frozen, **self._averages, **self._masters()}

    def _float32_averages(self) -> dict[str, torch.Tensor]:
        """The averages; in float32 training they are the very shards the forward pass gathers."""
        masters = self._masters()
        found = {}
        for name, twin in self._twins.items():
            gathered = self._parameters[name].ds_tensor
            exact = gathered.dtype == torch.float32
            found[name] = gathered.data if exact else masters[twin].clone()
        return found

    def _publish_averages(self) -> None:
        """Round the averages into the shards that the forward pass gathers."""
        for name, average in self._averages.items():
            self._parameters[name].ds_tensor.data.copy_(average)

    def _shard(self, name: str, padded: torch.Tensor) -> Shard:
        """Cut the padding off: ZeRO gives rank r the elements [r n, (r + 1) n) of a parameter."""
        start = dist.get_rank() * padded.numel()
        length = max(0, min(padded.numel(), math.prod(self._shapes[name]) - start))
        return Shard(padded.detach()[:length], start, self._shapes[name])

    @staticmethod
    def _fill(padded: torch.Tensor, shard: Shard) -> None:
        padded.data[: shard.data.numel()].copy_(shard.data)

    def _gradient_norm(self) -> float:
        """Global 2-norm of the reduced gradient; not finite if any rank's share is not."""
        from deepspeed.utils import safe_get_local_grad

        shards = [safe_get_local_grad(p) for p in self._trainable.values()]
        total = torch.stack(torch._foreach_norm(shards)).double().square().sum()
        dist.all_reduce(total)
        return float(total.sqrt())


def _own_parts(module: nn.Module) -> Shards:
    """This rank's parts of whole float32 parameters, cut as ZeRO cuts them."""
    parts = {}
    for name, parameter in module.named_parameters():
        whole = parameter.detach().reshape(-1)
        length = -(-whole.numel() // dist.get_world_size())
        start = dist.get_rank() * length
        part = whole[start : start + length].float().clone()
        parts[f"weight/{name}"] = Shard(part, start, tuple(parameter.shape))
    return parts


def _settings(config: OptimizerConfig, shape: StreamShape, device: torch.device) -> dict[str, Any]:
    """The DeepSpeed config: everything stated, nothing left to its defaults that matters."""
    bfloat16 = config.precision == "bfloat16"
    return {
        "train_batch_size": shape.micro_batch * shape.accumulation * shape.world_size,
        "train_micro_batch_size_per_gpu": shape.micro_batch,
        "gradient_accumulation_steps": shape.accumulation,
        "gradient_clipping": config.max_gradient_norm or 0.0,  # 0 is never; absent means 1.0
        "bf16": {"enabled": bfloat16},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": {
            "stage": 3,
            "stage3_param_persistence_threshold": 0,  # what stays gathered misses shard writes
            "overlap_comm": device.type == "cuda",
            "contiguous_gradients": True,
        },
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31,
    }
