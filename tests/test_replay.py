"""One step of a run once more: the run's own numbers, and where they went wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.ranks import pretrain_plain
from typer.testing import CliRunner

from echojepa.cli.main import app
from echojepa.config import validate
from echojepa.errors import CheckpointError, ConfigError, DroppedStepsError
from echojepa.pretrain import PretrainConfig
from echojepa.replay import Replay, replay
from echojepa.runs.folder import RunFolder, read_lines

Tree = dict[str, Any]
CPU = torch.device("cpu")


def again(tree: Tree, step: int) -> Replay:
    """The step, repeated here."""
    return replay(validate(tree, PretrainConfig, "test"), step, CPU)


def line(tree: Tree, step: int) -> dict[str, float]:
    """What the run logged of a step."""
    lines = read_lines(Path(tree["run_dir"]) / "metrics.jsonl")
    return next(line for line in lines if line["step"] == step + 1)


@pytest.mark.parametrize("max_micro_batch", [8, 3])
def test_a_step_gives_the_numbers_of_the_run(tree: Tree, max_micro_batch: int) -> None:
    tree["loop"] |= {"checkpoint_every_steps": 2, "keep_last": 99}
    pretrain_plain(tree)
    tree["optimizer"]["max_micro_batch"] = max_micro_batch
    for step in (0, 4):
        if step == 0:
            with pytest.raises(CheckpointError, match="no checkpoint up to step 0"):
                again(tree, step)
            continue
        found = again(tree, step)
        logged = line(tree, step)
        assert found.weights == "step_00000004"
        assert found.gradient_norm == pytest.approx(logged["gradient_norm"], rel=1e-4)
        losses = np.mean([clip.losses for clip in found.clips])
        assert losses == pytest.approx(logged["loss"], rel=1e-5)
        assert {clip.sample for clip in found.clips} == set(range(4 * 8, 5 * 8))
        assert {m.name for m in found.modules} >= {"encoder.blocks.0", "target.blocks.1"}
        assert not any(m.num_not_finite for m in found.modules)
        assert Image.open(found.picture).height > 8 * 48
    before = RunFolder(tree["run_dir"]).attempts()
    assert len(before) == 1, "a replay is no start of the run"
    with pytest.raises(ConfigError, match="there is no step 8"):
        again(tree, 8)


def test_a_run_whose_steps_are_all_dropped_ends_and_can_be_looked_at(tree: Tree) -> None:
    """A rate far too high: the weights overflow, and no gradient is finite ever after."""
    tree["optimizer"]["lr"] = {"peak": 1e30}
    tree["loop"] |= {"num_steps": 40, "checkpoint_every_steps": 5, "max_dropped_steps": 7}
    with pytest.raises(DroppedStepsError, match="7 steps in a row were dropped") as caught:
        pretrain_plain(tree)
    folder = RunFolder(tree["run_dir"])
    dropped = [event["step"] for event in folder.events("non_finite_step")]
    last = dropped[-1]
    assert dropped[-7:] == list(range(last - 6, last + 1))
    assert f"step {last}, of the samples {last * 8} to {last * 8 + 7}" in str(caught.value)
    assert f"echojepa replay RUN {last}" in caught.value.remedy

    result = CliRunner().invoke(app, ["replay", str(folder.path), str(last), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "on the weights of: step_000000" in result.stdout
    assert "gradient norm nan" in result.stdout
    assert result.stdout.splitlines()[-1] == str(folder.path / "replays" / f"step_{last:08d}.png")
    assert any(clip in result.stdout for clip in clip_ids(tree))


def clip_ids(tree: Tree) -> list[str]:
    config = validate(tree, PretrainConfig, "test")
    clips = config.data.clips()
    return clips.clip_ids(np.arange(len(clips)))


def test_a_dropped_step_now_and_then_ends_nothing(tree: Tree) -> None:
    """The count begins anew with every step that is applied."""
    tree["loop"] |= {"max_dropped_steps": 1}
    pretrain_plain(tree)
    assert not RunFolder(tree["run_dir"]).events("non_finite_step")


def test_what_is_no_run(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["replay", str(tmp_path), "3"])
    assert "not a run folder" in str(result.exception)
