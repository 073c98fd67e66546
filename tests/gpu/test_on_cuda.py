"""Five minutes on a machine with a CUDA device; skips itself everywhere else.

pytest -m integration tests/gpu
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.ranks import losses, pretrain_plain

from echojepa.config import validate
from echojepa.launch.pretrain import PretrainJob
from echojepa.launch.pretrain import launch as launch_pretrain
from echojepa.models.encoder import EncoderConfig, VideoEncoder
from echojepa.runs.audit import audit_run
from echojepa.runs.folder import RunFolder, read_lines
from echojepa.train.device import memory_bytes, training_device

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
Tree = dict[str, Any]


@pytest.fixture
def tree(tiny_tree: Tree) -> Tree:
    """Twenty steps on every GPU of this machine."""
    tiny_tree["loop"] |= {"num_steps": 20, "log_every_steps": 1, "checkpoint_every_steps": 5}
    tiny_tree["cluster"] = {"num_workers": torch.cuda.device_count()}
    return tiny_tree


def launch(tree: Tree) -> dict[str, float]:
    return launch_pretrain(validate(tree, PretrainJob, "test"), show_progress=False)


def on_the_cpu(tree: Tree) -> list[float]:
    """The same run in this process on the CPU."""
    plain = copy.deepcopy(tree)
    plain.pop("cluster")
    plain["run_dir"] = f"{tree['run_dir']}_cpu"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        return pretrain_plain(plain)


def largest_difference(a: list[float], b: list[float]) -> float:
    assert len(a) == len(b)
    return float(np.abs(np.array(a) - np.array(b)).max())


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-2), ("bfloat16", 5e-2)])
def test_zero_3_with_nccl_follows_the_cpu(tree: Tree, precision: str, tolerance: float) -> None:
    """TF32 and bfloat16 round; a wrong gradient, moment or average would be far off."""
    expected = on_the_cpu(tree)
    tree["optimizer"]["precision"] = precision
    launch(tree)
    assert largest_difference(losses(tree), expected) < tolerance
    assert audit_run(RunFolder(tree["run_dir"])).num_samples == 20 * 8


def test_stop_and_resume_on_gpus(tree: Tree) -> None:
    whole = copy.deepcopy(tree)
    whole["run_dir"] = f"{tree['run_dir']}_whole"
    launch(whole)
    tree["loop"]["stop_after_step"] = 10
    launch(tree)
    tree["loop"]["stop_after_step"] = None
    launch(tree)
    assert [a["start_step"] for a in RunFolder(tree["run_dir"]).attempts()] == [0, 10]
    assert largest_difference(losses(tree), losses(whole)) < 1e-3


def test_memory_and_speed_are_the_devices(tree: Tree) -> None:
    launch(tree)
    last = read_lines(Path(tree["run_dir"]) / "metrics.jsonl")[-1]
    assert 0 < last["memory_gb"] < torch.cuda.get_device_properties(0).total_memory / 1e9


def test_an_encoder_gives_the_same_features_on_both_devices() -> None:
    encoder = VideoEncoder(EncoderConfig(width=96, depth=3, num_heads=4, patch_size=8)).eval()
    clip = torch.randn(2, 3, 8, 64, 64)
    with torch.no_grad():
        on_cpu = encoder(clip)
        on_cuda = encoder.to(training_device())(clip.to(training_device())).cpu()
    assert memory_bytes(training_device()) > 0
    assert torch.allclose(on_cpu, on_cuda, atol=1e-2)
