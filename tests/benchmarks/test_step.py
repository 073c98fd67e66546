"""One training step, ours against the published method: same weights, same inputs, interleaved.

pytest -m soak tests/benchmarks -s

It fails if the two are not the same mathematics, and prints how long each takes.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from reference_method import ReferenceMethod
from torch.profiler import ProfilerActivity, profile

from echojepa.models.encoder import EncoderConfig
from echojepa.objectives.jepa import Jepa, JepaConfig, ModelConfig
from echojepa.objectives.masks import MaskConfig, MaskSampler
from echojepa.train.engine import OptimizerConfig, PlainEngine, Schedule

pytestmark = pytest.mark.soak
VIT_SMALL = EncoderConfig(width=384, depth=12, num_heads=6)
REPEATS = 5
Step = Callable[[], float]


def steps_of(size: int, batch: int) -> tuple[Step, Step]:
    """One step of ours and one of the published method, on the same clips and masks."""
    model = ModelConfig(encoder=VIT_SMALL)
    ours = Jepa(model, JepaConfig())
    theirs = ReferenceMethod(ours, torch.float32)
    grid = VIT_SMALL.grid(16, size, size)
    shares = {112: (0.35, 0.18), 224: (0.376, 0.189)}[size]  # 7 x 7 is too small for the blocks
    generators = [
        {"num_blocks": 8, "spatial_scale": 0.15, "context_fraction": shares[0]},
        {"num_blocks": 2, "spatial_scale": 0.6, "context_fraction": shares[1]},
    ]
    masks = MaskSampler(MaskConfig.model_validate({"generators": generators}), grid, 0)
    drawn = masks(np.arange(batch))
    contexts = [torch.from_numpy(mask.context) for mask in drawn]
    hiddens = [torch.from_numpy(mask.hidden) for mask in drawn]
    pixels = torch.randint(0, 255, (batch, 16, size, size, 3), dtype=torch.uint8)
    engine = PlainEngine(ours, OptimizerConfig(lr=Schedule(peak=1e-5), max_micro_batch=batch))

    def our_step() -> float:
        losses, _ = engine.forward(pixels, contexts, hiddens)
        loss = losses.mean()
        engine.backward(loss, last=True)
        engine.step(1e-5, 0.04)
        engine.update_target(0.99925)
        return loss.item()

    return our_step, lambda: theirs.step(pixels, contexts, hiddens)


@pytest.mark.parametrize(("size", "batch"), [(112, 4), (224, 1)])
def test_a_float32_step_against_the_published_method(size: int, batch: int) -> None:
    torch.set_num_threads(os.cpu_count() or 1)
    ours, theirs = steps_of(size, batch)
    assert ours() == pytest.approx(theirs(), rel=1e-4), "the same mathematics"
    seconds: dict[str, list[float]] = {"ours": [], "published": []}
    for _ in range(REPEATS):
        for name, step in (("ours", ours), ("published", theirs)):
            began = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ratio = medians["published"] / medians["ours"]
    print(
        f"\nViT-S, {size} px, batch {batch}, float32, {torch.get_num_threads()} threads: "
        f"ours {medians['ours']:.2f} s, published method {medians['published']:.2f} s, "
        f"ratio {ratio:.2f}"
    )
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        ours()
    print(
        seen.key_averages().table(
            sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=40
        )
    )
