"""The arms of a seed saw the same clips in the same order: from recorded samples, not from hope."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.ranks import pretrain_plain

from echojepa.benchmark.order import clips_seen, same_order
from echojepa.benchmark.runs import record_of
from echojepa.errors import AuditError


def run(tree: dict[str, Any], folder: Path, **changes: Any) -> Path:
    """A run of the tiny config on one worker, without a cluster."""
    pretrain_plain({**tree, "run_dir": str(folder), **changes})
    return folder


def test_another_objective_and_length_see_the_same_clips_and_another_seed_does_not(
    tiny_tree: dict[str, Any], tmp_path: Path
) -> None:
    masks = {"generators": [{"num_blocks": 1, "spatial_scale": 0.3}]}
    shorter = {**tiny_tree["loop"], "num_steps": 5}
    runs = {
        "first": run(tiny_tree, tmp_path / "first"),
        "other": run(
            tiny_tree, tmp_path / "other", objective={"kind": "jepa", "masks": masks}, loop=shorter
        ),
        "another seed": run(tiny_tree, tmp_path / "seed", seed=2, loop=shorter),
    }
    seen = {name: clips_seen(folder) for name, folder in runs.items()}
    assert [len(clips) for clips in seen.values()] == [64, 40, 40]
    alike = same_order({name: seen[name] for name in ("first", "other")})
    assert not alike.differing and alike.num_samples == 40
    assert str(alike) == "the same 40 clips in the same order"
    apart = same_order(seen)
    assert list(apart.differing) == ["another seed"]
    assert "another seed from sample" in str(apart)


def test_a_record_that_lacks_a_sample_is_no_proof(
    tiny_tree: dict[str, Any], tmp_path: Path
) -> None:
    folder = run(tiny_tree, tmp_path / "run")
    (record,) = (folder / "samples").glob("*.jsonl")
    lines = record.read_text().splitlines(keepends=True)
    record.write_text("".join(lines[:3] + lines[4:]))
    with pytest.raises(AuditError, match="finding"):
        clips_seen(folder)


def test_the_first_clip_that_differs_is_named() -> None:
    order = same_order({"a": ["x", "y", "z"], "b": ["x", "z"]})
    assert order.differing == {"b": 1} and order.num_samples == 2


def test_a_record_says_what_a_run_took(tree: dict[str, Any], tmp_path: Path) -> None:
    folder = run(tree, tmp_path / "run")
    record = record_of(folder)
    assert (record.num_steps, record.num_samples) == (8, 64)
    assert record.seconds == pytest.approx(sum(line["step_seconds"] for line in record.curves))
    ranks = record.curve("effective_rank")
    assert [step for step, _ in ranks] == list(range(1, 9))
    assert all(value > 1 for _, value in ranks)
    assert record.curve("no_such_metric") == []
