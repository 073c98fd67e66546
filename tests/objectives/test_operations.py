"""A training step of every objective, forward and backward, against PyTorch's own count of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.masks import BLOCKS, MASKS
from support.teachers import GRID, MODEL, pixels_of, write_teacher
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from echojepa.cost import flops_per_clip
from echojepa.objectives.frozen_target import FrozenTargetConfig
from echojepa.objectives.jepa import JepaConfig
from echojepa.objectives.mae import MaeConfig
from echojepa.objectives.objective import ModelConfig, ObjectiveConfig
from echojepa.objectives.regulariser import SigregConfig, VicregConfig
from echojepa.objectives.token_masks import RandomMaskConfig
from echojepa.randomness import Seeds

NUM_CLIPS = 4
OBJECTIVES: dict[str, ObjectiveConfig] = {
    "jepa": JepaConfig(masks=MASKS),
    "dense": JepaConfig(masks=MASKS, context_weight=0.5, context_distance=True),
    "sigreg": JepaConfig(masks=MASKS, regulariser=SigregConfig(group=NUM_CLIPS)),
    "online": JepaConfig(masks=MASKS, target="online", regulariser=VicregConfig(group=NUM_CLIPS)),
    "mae of tubes": MaeConfig(),
    "mae of tokens": MaeConfig(masks=RandomMaskConfig(hidden_fraction=0.6)),
    "mae of blocks": MaeConfig(masks=BLOCKS),
}


def check(config: ObjectiveConfig, model: ModelConfig = MODEL) -> None:
    objective = config.build(model, GRID, Seeds(0))
    module, counter = objective.module(torch.float32), FlopCounterMode(display=False)
    objective.complete(module)
    drawn = objective.draw(np.arange(NUM_CLIPS))
    with sdpa_kernel(SDPBackend.MATH), counter:  # the counter sees no other attention on CPUs
        module(pixels_of(NUM_CLIPS), *drawn).losses.sum().backward()
    expected = NUM_CLIPS * flops_per_clip(objective.passes())
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_operations_are_those_that_pytorch_counts(name: str) -> None:
    predictor = MODEL.predictor.model_copy(update={"context_head": name == "dense"})
    check(OBJECTIVES[name], MODEL.model_copy(update={"predictor": predictor}))


def test_those_of_a_frozen_target_too(tmp_path: Path) -> None:
    teacher = str(write_teacher(tmp_path / "teacher"))
    check(FrozenTargetConfig(masks=MASKS, target=teacher).bound(MODEL))
