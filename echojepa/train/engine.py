"""What the loop needs of a training engine, and the plain single-process one.

An engine owns the parameters, the optimiser and the moving averages. Two exist: `PlainEngine` here,
the textbook loop that tests compare against, and `ZeroEngine` in `zero_engine.py`, the real one.
Both speak of model state as named float32 shards, so that checkpoints know neither.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple, Protocol

import torch
from pydantic import Field, model_validator
from torch import nn

from echojepa.config import Strict, changeable
from echojepa.objectives.objective import Output, twins
from echojepa.objectives.target import ema_update
from echojepa.train.schedules import Schedule
from echojepa.train.step import StepResult


class OptimizerConfig(Strict):
    """AdamW (Loshchilov and Hutter 2019) and the schedules that drive a run."""

    lr: Schedule
    """Learning rate."""
    lr_reference_batch: int | None = Field(None, gt=0)
    """State `lr` for this global batch, and a run trains with it times its own batch over this;
    null takes `lr` as it stands. V-JEPA 2 states 5.25e-4 for 3072."""
    weight_decay: Schedule = Schedule(peak=0.04)
    """Decoupled weight decay; biases, norms and other one-dimensional parameters have none."""
    momentum: Schedule = Schedule(peak=0.99925)
    """Momentum of the EMA target."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of Adam's mean of gradients."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """Decay of Adam's mean of squared gradients."""
    eps: float = Field(1e-8, gt=0)
    """Added to the root of that mean."""
    max_gradient_norm: float | None = Field(None, gt=0)
    """Clip the global gradient norm; null never clips."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Of weights and activations in the forward pass; master weights are float32 always."""
    max_micro_batch: int = changeable(gt=0)
    """Most clips per worker and forward pass; more are accumulated."""

    @model_validator(mode="after")
    def _averages_stay_averages(self) -> OptimizerConfig:
        for name in ("start", "peak", "final"):
            value = getattr(self.momentum, name)
            if value is not None and value > 1:
                raise ValueError(f"momentum.{name} = {value} is above 1: the target would diverge")
        return self


def at_batch(config: OptimizerConfig, global_batch: int) -> OptimizerConfig:
    """The settings a run with this global batch trains with: the linear scaling rule, applied once.

    (Goyal et al. 2017; the published EchoJEPA rates are 5.25e-4 x batch / 3072.)
    """
    if config.lr_reference_batch is None:
        return config
    factor = global_batch / config.lr_reference_batch
    return config.model_copy(update={"lr": config.lr.times(factor), "lr_reference_batch": None})


class Shard(NamedTuple):
    """The part [start, start + len(data)) of a flattened tensor that this rank holds."""

    data: torch.Tensor
    """1-D float32."""
    start: int
    shape: tuple[int, ...]
    """Of the whole tensor."""


Shards = dict[str, Shard]
"""Keys are "weight/<p>", "exp_avg/<p>", "exp_avg_sq/<p>"; <p> names a parameter of the module.

Averages have a weight only: the float32 average itself.
"""


class Engine(Protocol):
    """Forward, backward, step, average, save, load."""

    device: torch.device

    def forward(self, pixels: torch.Tensor, *drawn: list[torch.Tensor]) -> Output:
        """The module's output for one micro-batch; see `Objective.module`."""

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        """Accumulate the gradient of this rank's part of the loss; `last` closes the step.

        Gradients are summed over micro-batches and ranks.
        """

    def step(self, lr: float, weight_decay: float) -> StepResult:
        """Apply the accumulated gradient, or drop it if any rank's share is not finite."""

    def discard(self) -> None:
        """Forget the accumulated gradient."""

    def update_averages(self, momentum: float) -> None:
        """Move the averages towards what they average; see `objectives.target`."""

    def shards(self) -> Shards:
        """All state of this rank, as views or copies in float32."""

    def load_shards(self, shards: Shards, num_steps: int) -> None:
        """Set all state that `shards` names, and Adam's own count of applied steps."""


def decay_groups(module: nn.Module) -> list[dict[str, object]]:
    """Trainable parameters in two AdamW groups: with and without weight decay.

    Must see whole parameters: once ZeRO has partitioned them, all are one-dimensional.
    """
    trainable = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim > 1], "name": "decay"},
        {"params": [p for p in trainable if p.ndim <= 1], "name": "no_decay"},
    ]


def new_adamw(
    module: nn.Module, config: OptimizerConfig, device: torch.device
) -> torch.optim.AdamW:
    """The optimiser both engines use; rates are set before every step."""
    return torch.optim.AdamW(
        decay_groups(module),
        lr=config.lr.peak,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        weight_decay=0.0,
        fused=device.type == "cuda",
    )


def set_rates(optimizer: torch.optim.Optimizer, lr: float, weight_decay: float) -> None:
    """Give every parameter group the rates of the coming step."""
    for group in optimizer.param_groups:
        group["lr"] = lr
        group["weight_decay"] = weight_decay if group["name"] == "decay" else 0.0


def fresh_adam_state(flat: torch.Tensor, *, step: float, fused: bool) -> dict[str, torch.Tensor]:
    """AdamW's state before its first step, which torch would create lazily."""
    where = flat.device if fused else torch.device("cpu")
    return {
        "step": torch.tensor(step, dtype=torch.float32, device=where),
        "exp_avg": torch.zeros_like(flat),
        "exp_avg_sq": torch.zeros_like(flat),
    }


class PlainEngine:
    """One process, whole parameters, float32. The reference for `ZeroEngine`."""

    def __init__(
        self, module: nn.Module, averages: Mapping[str, str], config: OptimizerConfig
    ) -> None:
        """`averages` as in `objectives.objective.Facts`."""
        self.device = torch.device("cpu")
        self.module = module
        self._config = config
        self._twins = twins((name for name, _ in module.named_parameters()), averages)
        self._optimizer = new_adamw(module, config, self.device)
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                state = fresh_adam_state(parameter.detach(), step=0.0, fused=False)
                self._optimizer.state[parameter] = state

    def forward(self, pixels: torch.Tensor, *drawn: list[torch.Tensor]) -> Output:
        """See `Engine`."""
        output: Output = self.module(pixels, *drawn)
        return output

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        """See `Engine`."""
        del last  # gradients simply add up until the step
        loss.backward()

    def step(self, lr: float, weight_decay: float) -> StepResult:
        """See `Engine`."""
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        limit = self._config.max_gradient_norm or math.inf
        norm = float(nn.utils.clip_grad_norm_(parameters, limit))
        applied = math.isfinite(norm)
        if applied:
            set_rates(self._optimizer, lr, weight_decay)
            self._optimizer.step()
        self.discard()
        return StepResult(applied, norm)

    def discard(self) -> None:
        """See `Engine`."""
        self._optimizer.zero_grad(set_to_none=True)

    def update_averages(self, momentum: float) -> None:
        """See `Engine`."""
        parameters = {name: p.detach() for name, p in self.module.named_parameters()}
        pairs = ((parameters[name], parameters[twin]) for name, twin in self._twins.items())
        ema_update(pairs, momentum)

    def shards(self) -> Shards:
        """See `Engine`."""
        return {
            key: Shard(tensor.reshape(-1), 0, tuple(tensor.shape)) for key, tensor in self._all()
        }

    def load_shards(self, shards: Shards, num_steps: int) -> None:
        """See `Engine`."""
        for key, tensor in self._all():
            if key in shards:
                tensor.copy_(shards[key].data.reshape(tensor.shape))
        for state in self._optimizer.state.values():
            state["step"].fill_(num_steps)

    def _all(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, parameter in self.module.named_parameters():
            yield f"weight/{name}", parameter.detach()
            for moment in ("exp_avg", "exp_avg_sq") if parameter.requires_grad else ():
                yield f"{moment}/{name}", self._optimizer.state[parameter][moment]
