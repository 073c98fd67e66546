"""The record of samples, and an audit that finds every kind of loss."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from echojepa.data.clip_table import ClipTable, open_clips
from echojepa.data.manifest.schema import ClipFilter
from echojepa.data.stream import PADDING, StreamShape
from echojepa.errors import AuditError
from echojepa.randomness import Seeds
from echojepa.runs.audit import AuditReport, Expected, audit
from echojepa.train.feed import MicroBatch, StepBatch
from echojepa.train.record import SampleRecord, as_ranges, from_ranges

SEED = 7
SHAPE = StreamShape(global_batch=8, world_size=2, micro_batch=4, accumulation=1, block_rows=2)
Tamper = Callable[[list[np.ndarray]], list[np.ndarray]]


@pytest.fixture
def clips(phantom_manifest: Path) -> ClipTable:
    return open_clips(phantom_manifest, ClipFilter(split=None))


def write(folder: Path, clips: ClipTable, steps: range, attempt: int, tamper: Tamper) -> None:
    """Record steps as two ranks would that receive the blocks `tamper` makes of the real ones."""
    for rank in range(SHAPE.world_size):
        with SampleRecord(folder, attempt, rank) as record:
            for step in steps:
                blocks = [SHAPE.block_samples(step, b) for b in range(SHAPE.blocks_per_step)]
                mine = tamper(blocks)[rank :: SHAPE.world_size]
                record.append(batch_of(step, np.concatenate(mine), clips), applied=True)


def batch_of(step: int, samples: np.ndarray, clips: ClipTable) -> StepBatch:
    ids = clips.clip_ids(clips.rows_of(np.maximum(samples, 0), Seeds(SEED)))
    micro = MicroBatch(
        samples=samples,
        clip_ids=["" if s == PADDING else i for s, i in zip(samples, ids, strict=True)],
        weights=torch.from_numpy((samples != PADDING).astype(np.float32)),
        pixels=torch.empty(0, dtype=torch.uint8),
        problems=[None] * len(samples),
        num_held_frames=0,
    )
    return StepBatch(step, [micro], 0.0)


def expected(clips: ClipTable, origin: int = 0) -> Expected:
    return Expected(clips, Seeds(SEED), SHAPE.global_batch, origin)


def kinds(report: AuditReport) -> set[str]:
    """What an audit has found."""
    return {finding.kind for finding in report.findings}


def untouched(blocks: list[np.ndarray]) -> list[np.ndarray]:
    return blocks


def test_an_undisturbed_run_is_clean(tmp_path: Path, clips: ClipTable) -> None:
    write(tmp_path, clips, range(6), 0, untouched)
    report = audit(tmp_path, {0: 0}, expected(clips))
    assert not report.findings
    assert (report.num_steps, report.num_samples) == (6, 48)


def test_a_resume_counts_redone_steps_once(tmp_path: Path, clips: ClipTable) -> None:
    write(tmp_path, clips, range(0, 5), 0, untouched)
    write(tmp_path, clips, range(3, 6), 1, untouched)
    report = audit(tmp_path, {0: 0, 1: 3}, expected(clips))
    assert not report.findings
    assert (report.num_steps, report.num_samples, report.num_redone_steps) == (6, 48, 2)


def test_an_attempt_that_never_got_to_a_step_is_harmless(tmp_path: Path, clips: ClipTable) -> None:
    write(tmp_path, clips, range(0, 3), 0, untouched)
    write(tmp_path, clips, range(3, 6), 2, untouched)
    assert not audit(tmp_path, {0: 0, 1: 3, 2: 3}, expected(clips)).findings


def drop(blocks: list[np.ndarray]) -> list[np.ndarray]:
    return [*blocks[:2], np.empty(0, np.int64), blocks[3]]


def double(blocks: list[np.ndarray]) -> list[np.ndarray]:
    return [*blocks, blocks[0], blocks[1]]


def replace(blocks: list[np.ndarray]) -> list[np.ndarray]:
    return [blocks[0], blocks[1], blocks[2], blocks[2]]


@pytest.mark.parametrize(
    ("tamper", "what"),
    [(drop, {"lost"}), (double, {"doubled"}), (replace, {"lost", "doubled"})],
)
def test_a_dropped_doubled_or_replaced_block_is_found(
    tmp_path: Path, clips: ClipTable, tamper: Tamper, what: set[str]
) -> None:
    write(tmp_path, clips, range(4), 0, tamper)
    report = audit(tmp_path, {0: 0}, expected(clips))
    assert {finding.step for finding in report.findings} == {0, 1, 2, 3}
    assert kinds(report) == what
    assert all(len(finding.samples) in (2, 4) for finding in report.findings)
    with pytest.raises(AuditError, match="finding"):
        report.raise_if_unclean("here")


def test_a_block_swapped_between_steps_is_found(tmp_path: Path, clips: ClipTable) -> None:
    write(tmp_path, clips, range(4), 0, untouched)
    file = tmp_path / "attempt_0000_rank_00001.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[1]["samples"], lines[2]["samples"] = lines[2]["samples"], lines[1]["samples"]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    findings = audit(tmp_path, {0: 0}, expected(clips)).findings
    found = {(f.kind, f.step) for f in findings}
    assert {("lost", 1), ("lost", 2), ("foreign", 1), ("foreign", 2)} <= found


def test_the_right_index_with_another_clip_is_found(tmp_path: Path, clips: ClipTable) -> None:
    write(tmp_path, clips, range(2), 0, untouched)
    other = Expected(clips, Seeds(SEED + 1), SHAPE.global_batch, 0)
    assert kinds(audit(tmp_path, {0: 0}, other)) == {"other_clips"}


def test_a_rank_that_recorded_nothing_is_found(tmp_path: Path, clips: ClipTable) -> None:
    write(tmp_path, clips, range(3), 0, untouched)
    (tmp_path / "attempt_0000_rank_00001.jsonl").write_text("")
    assert kinds(audit(tmp_path, {0: 0}, expected(clips))) == {"silent_rank", "lost"}


def test_a_gap_between_attempts_is_found(tmp_path: Path, clips: ClipTable) -> None:
    write(tmp_path, clips, range(0, 2), 0, untouched)
    write(tmp_path, clips, range(3, 5), 1, untouched)
    (finding,) = audit(tmp_path, {0: 0, 1: 3}, expected(clips)).findings
    assert (finding.kind, finding.step) == ("gap", 3)
    assert "the history before it ends at 2" in str(finding)


def test_a_line_cut_off_by_a_kill_belongs_to_no_step(tmp_path: Path, clips: ClipTable) -> None:
    write(tmp_path, clips, range(3), 0, untouched)
    for file in tmp_path.glob("*.jsonl"):
        file.write_text(file.read_text()[:-9])
    report = audit(tmp_path, {0: 0}, expected(clips))
    assert (report.num_steps, report.findings) == (2, [])


@given(st.lists(st.integers(0, 60), max_size=40))
def test_ranges_keep_order_and_repeats(samples: list[int]) -> None:
    assert from_ranges(as_ranges(samples)).tolist() == samples
