"""The driver's progress: lines of a run that somebody else writes."""

from __future__ import annotations

from typing import Any

import pytest

from echojepa.config import validate
from echojepa.on_ray.progress import Progress, describe
from echojepa.pretrain import PretrainConfig
from echojepa.runs.folder import RunFolder

METRICS = {
    "loss": 0.51234,
    "effective_rank": 7.25,
    "clips_per_second": 12.34,
    "data_wait_share": 0.071,
    "probe/lvef_r2": 0.4,
    "probe/lvef_mae": 9.0,
}


@pytest.fixture
def folder(tiny_tree: dict[str, Any]) -> RunFolder:
    folder = RunFolder(tiny_tree["run_dir"])
    folder.create(validate(tiny_tree, PretrainConfig, "test"), "fingerprint")
    return folder


def test_one_line_says_how_it_goes() -> None:
    assert describe(METRICS) == ("loss 0.5123  rank 7.2  12.3 clips/s  waiting 7%  lvef_r2 0.40")


def test_what_is_new_is_printed_and_what_was_there_is_not(
    folder: RunFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    folder.metrics(2, METRICS)
    with Progress(folder, 8, enabled=True):
        folder.metrics(4, METRICS)
        folder.event("non_finite_step", step=5)
        folder.event("unreadable_clip", 5, clip_id="abc", problem="open|missing|no such file")
    said = capfd.readouterr().err
    assert "step 4/8  loss 0.5123" in said
    assert "step 5 dropped: a gradient was not finite" in said
    assert "clip abc could not be read: open|missing|no such file" in said
    assert "step 2/8" not in said


def test_silence_when_it_is_asked_for(folder: RunFolder, capfd: pytest.CaptureFixture[str]) -> None:
    with Progress(folder, 8, enabled=False):
        folder.metrics(4, METRICS)
    assert capfd.readouterr().err == ""
