"""A process that stands still ends itself and says what it was doing; one that gets on does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from echojepa.runs.folder import RunFolder

CODE = """
import sys, time
from echojepa.on_ray import heartbeat
from echojepa.runs.folder import RunFolder
beating = heartbeat.Heartbeat(RunFolder(sys.argv[1]), 3, 0.4, 3.0)
def stand_still():
    time.sleep(20)
beating.beat()
{then}
"""
CASES = {
    "stands still": ("beating.beat(); stand_still()", 70),
    "gets on": ("for _ in range(10):\n    time.sleep(0.2)\n    beating.beat()", 0),
    "a long first step": ("time.sleep(1.5); beating.beat()", 0),
    "never ends its first step": ("stand_still()", 70),
    "has finished": ("beating.beat(); beating.pause(); time.sleep(1.5)", 0),
    "stands still after a pause": (
        "beating.beat(); beating.pause(); time.sleep(1); beating.beat(); stand_still()",
        70,
    ),
}


@pytest.mark.integration
@pytest.mark.parametrize("case", CASES)
def test_only_silence_ends_the_process(case: str, tmp_path: Path) -> None:
    then, code = CASES[case]
    command = [sys.executable, "-c", CODE.format(then=then), str(tmp_path)]
    assert subprocess.run(command, check=False, timeout=60).returncode == code
    events = RunFolder(tmp_path).events("hang")
    assert len(events) == (code == 70)
    for event in events:
        assert event["rank"] == 3 and event["seconds"] >= 0.4
        assert "stand_still" in (tmp_path / event["stacks"]).read_text()
