"""One training step, ours against the published method: same weights, same inputs, interleaved.

pytest -m soak tests/benchmarks -s

It fails if the two are not the same mathematics, and prints how long each takes.
"""

from __future__ import annotations

import copy
import os
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from support.benchmarks.reference_method import ReferenceMethod
from torch.profiler import ProfilerActivity, profile

from echojepa.models.encoder import EncoderConfig
from echojepa.objectives.jepa import Jepa, JepaConfig
from echojepa.objectives.masks import MaskConfig, MaskSampler
from echojepa.objectives.objective import ModelConfig
from echojepa.randomness import Seeds
from echojepa.train.engine import OptimizerConfig, PlainEngine, Schedule

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]
VIT_SMALL = EncoderConfig(width=384, depth=12, num_heads=6)
REPEATS = 3
Step = Callable[[], float]


class Shown(NamedTuple):
    """What every method trains on."""

    pixels: torch.Tensor
    contexts: list[torch.Tensor]
    hiddens: list[torch.Tensor]


def shown(size: int, batch: int) -> Shown:
    """Random clips with masks of the published kind."""
    grid = VIT_SMALL.grid(16, size, size)
    shares = {112: (0.35, 0.18), 224: (0.376, 0.189)}[size]  # 7 x 7 is too small for the blocks
    generators = [
        {"num_blocks": 8, "spatial_scale": 0.15, "context_fraction": shares[0]},
        {"num_blocks": 2, "spatial_scale": 0.6, "context_fraction": shares[1]},
    ]
    masks = MaskSampler(MaskConfig.model_validate({"generators": generators}), grid, Seeds(0))
    drawn = masks(np.arange(batch))
    return Shown(
        torch.randint(0, 255, (batch, 16, size, size, 3), dtype=torch.uint8),
        [torch.from_numpy(mask.context) for mask in drawn],
        [torch.from_numpy(mask.hidden) for mask in drawn],
    )


def our_step(jepa: Jepa, given: Shown, dtype: torch.dtype, *, compiled: bool = False) -> Step:
    """One step of a copy of `jepa`; bfloat16 by autocast over float32 weights, as published."""
    module = copy.deepcopy(jepa)
    if compiled:
        module.compile()
    engine = PlainEngine(
        module,
        {"target.": "encoder."},
        OptimizerConfig(lr=Schedule(peak=1e-5), max_micro_batch=len(given.pixels)),
    )

    def step() -> float:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            losses = engine.forward(*given).losses
        loss = losses.mean()
        engine.backward(loss, last=True)
        engine.step(1e-5, 0.04)
        engine.update_averages(0.99925)
        return loss.item()

    return step


def published_step(jepa: Jepa, given: Shown, dtype: torch.dtype) -> Step:
    """The same by the published method."""
    method = ReferenceMethod(jepa, torch.float32)

    def step() -> float:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            return method.step(*given)

    return step


@pytest.mark.parametrize(("size", "batch"), [(112, 4), (224, 1)])
def test_a_step_against_the_published_method(size: int, batch: int) -> None:
    torch.set_num_threads(os.cpu_count() or 1)
    jepa, given = Jepa(ModelConfig(encoder=VIT_SMALL), JepaConfig()), shown(size, batch)
    single, half = torch.float32, torch.bfloat16
    steps = {
        "published float32": published_step(jepa, given, single),
        "ours float32": our_step(jepa, given, single),
        "ours float32 compiled": our_step(jepa, given, single, compiled=True),
    }
    if has_bfloat16():
        steps["published bfloat16"] = published_step(jepa, given, half)
        steps["ours bfloat16"] = our_step(jepa, given, half)
    first = {name: step() for name, step in steps.items()}
    for name, loss in first.items():
        rel = 1e-4 if "float32" in name.split() else 2e-2
        assert loss == pytest.approx(first["published float32"], rel=rel), name
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(REPEATS):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print(f"\nViT-S, {size} px, batch {batch}, {torch.get_num_threads()} threads")
    for name, median in medians.items():
        ratio = medians["published float32"] / median
        print(f"{name:24s} {median:7.2f} s   {ratio:5.2f} x published float32")
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        steps["ours float32"]()
    print(
        seen.key_averages().table(
            sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=40
        )
    )


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware: emulated, a step takes many minutes."""
    supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return supported
