"""The whole of `pretrain` in one process: beginning, resuming, forking, refusing, reporting."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from support.ranks import losses, prepare, pretrain_plain, variant
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from echojepa.data.stream import StreamShape
from echojepa.errors import (
    BadDataError,
    StorageError,
)
from echojepa.models.weights import load_encoder
from echojepa.pretrain import pretrain
from echojepa.runs.audit import audit_run
from echojepa.runs.checkpoint import folder_of
from echojepa.runs.folder import RunFolder, read_lines
from echojepa.runs.shards import ShardReader
from echojepa.train.engine import Engine, OptimizerConfig, PlainEngine
from echojepa.train.worker import LocalWorker

Tree = dict[str, Any]
PROBE = {
    "task": {"name": "lvef", "label": "lvef", "kind": "regression"},
    "num_train": 8,
    "num_val": 6,
}


def test_a_run_leaves_everything_behind(tree: Tree) -> None:
    tree["loop"]["probe_every_steps"] = 4
    tree["probe"] = PROBE
    metrics = pretrain(prepare(tree), LocalWorker())
    run = RunFolder(tree["run_dir"])
    assert len(losses(tree)) == 8
    assert "probe/lvef_r2" in metrics
    assert audit_run(run).num_samples == 64
    encoder = load_encoder(run.encoder)
    with ShardReader(folder_of(run.checkpoints, 8)) as reader:
        for name, parameter in encoder.named_parameters():
            assert torch.equal(parameter, reader.whole(f"weight/target.{name}"))
    card = (run.encoder / "README.md").read_text()
    assert run.identity()["manifest_fingerprint"] in card
    assert "not a medical device" in card


def test_curves_of_a_restarted_run_do_not_zigzag(tree: Tree) -> None:
    """The first start logs up to step 6 and is lost; the second goes on from the save at 4."""
    tree["loop"] |= {"checkpoint_every_steps": 2, "stop_after_step": 6, "keep_last": 9}
    pretrain_plain(tree)
    run = RunFolder(tree["run_dir"])
    shutil.rmtree(folder_of(run.checkpoints, 6))
    run.intervene(2, 16, "first")
    shutil.rmtree(folder_of(run.checkpoints, 4))
    pretrain_plain(tree)
    run.intervene(4, 32, "second")
    shutil.rmtree(folder_of(run.checkpoints, 6))
    tree["loop"]["stop_after_step"] = None
    pretrain_plain(tree)
    pretrain_plain(tree)
    events = EventAccumulator(str(run.tensorboard))
    events.Reload()
    assert [event.step for event in events.Scalars("loss/loss")] == list(range(1, 9))
    rollbacks = [(event.step, event.value) for event in events.Scalars("health/rollbacks")]
    assert rollbacks == [(2, 1.0), (4, 2.0)]


def test_tensorboard_holds_scalars_images_and_the_config(tree: Tree) -> None:
    pretrain_plain(tree)
    events = EventAccumulator(str(RunFolder(tree["run_dir"]).tensorboard))
    events.Reload()
    tags = events.Tags()
    assert {
        "loss/loss",
        "loss/loss_mask_0",
        "loss/loss_mask_1",
        "schedule/lr",
        "schedule/weight_decay",
        "schedule/momentum",
        "health/gradient_norm",
        "health/feature_std",
        "health/effective_rank",
        "speed/clips_per_second",
        "speed/data_wait_share",
        "speed/step_seconds",
        "speed/memory_gb",
        "speed/held_frames_per_clip",
    } <= set(tags["scalars"])
    assert len(events.Scalars("loss/loss")) == 8
    assert "masks" in tags["images"]
    assert "config/text_summary" in tags["tensors"]


def test_stop_and_resume_is_bit_equal(tree: Tree) -> None:
    whole = pretrain_plain(variant(tree, "whole"))
    parts = variant(tree, "parts")
    for stop in (3, 4, None):
        parts["loop"]["stop_after_step"] = stop
        resumed = pretrain_plain(parts)
    assert resumed == whole
    report = audit_run(RunFolder(parts["run_dir"]))
    assert not report.findings
    assert [part.start for part in report.attempts] == [0, 3, 4]


@pytest.mark.integration
def test_a_damaged_checkpoint_is_passed_over_and_reported(tree: Tree) -> None:
    whole = pretrain_plain(variant(tree, "whole"))
    tree["loop"] |= {"checkpoint_every_steps": 2, "stop_after_step": 4}
    pretrain_plain(tree)
    run = RunFolder(tree["run_dir"])
    (folder_of(run.checkpoints, 4) / "state.json").write_text("{}")
    tree["loop"]["stop_after_step"] = None
    assert pretrain_plain(tree) == whole
    assert "step_00000004" in run.events("damaged_checkpoint")[0]["reason"]
    assert audit_run(run).num_redone_steps == 2


def test_the_learning_rate_follows_the_batch_and_says_so(tree: Tree) -> None:
    tree["optimizer"]["lr"] = {"peak": 1e-2, "shape": "linear", "final": 2e-3}
    tree["optimizer"]["lr_reference_batch"] = 32
    pretrain_plain(tree)
    run = RunFolder(tree["run_dir"])
    rates = [line["lr"] for line in read_lines(run.path / "metrics.jsonl")]
    assert rates[-1] == pytest.approx(2e-3 * 8 / 32)
    assert rates[0] == pytest.approx((1e-2 - 8e-3 / 8) * 8 / 32)
    (event,) = run.events("learning_rate_scaled")
    assert (event["stated"], event["reference_batch"], event["peak"]) == (1e-2, 32, 2.5e-3)
    assert "peak 0.0025, linear" in (run.encoder / "README.md").read_text()


def test_a_checkpoint_on_request_is_written_at_once(tree: Tree) -> None:
    class Asked(LocalWorker):
        asked = 0
        done: ClassVar[list[list[str]]] = []

        def save_requested(self) -> bool:
            self.asked += 1
            return self.asked == 3

        def save_done(self) -> None:
            folder = RunFolder(tree["run_dir"]).checkpoints
            self.done.append(sorted(path.name for path in folder.iterdir()))

    worker = Asked()
    pretrain(prepare(tree), worker)
    assert worker.done == [["step_00000003"]]
    assert worker.asked == 8, "asked at every step"


def test_unreadable_clips_of_the_probe_are_left_out_and_listed(tree: Tree, tmp_path: Path) -> None:
    original = Path(tree["data"]["manifest"])
    table = pq.read_table(original)
    gone = [row["clip_id"] for row in table.to_pylist() if row["split"] == "val"]
    tree["data"]["where"] = {"split": "train"}
    tree["loop"]["probe_every_steps"] = 4
    tree["probe"] = PROBE

    def lose(clip_ids: list[str]) -> str:
        uris = [
            "gone.mp4" if row["clip_id"] in clip_ids else str(original.parent / row["uri"])
            for row in table.to_pylist()
        ]
        manifest = tmp_path / f"without_{len(clip_ids)}.parquet"
        column = table.column_names.index("uri")
        pq.write_table(table.set_column(column, "uri", [uris]), manifest)
        return str(manifest)

    tree["data"]["manifest"] = lose(gone[:2])
    metrics = pretrain(prepare(tree), LocalWorker())
    assert np.isfinite(metrics["probe/lvef_mae"])
    rejected = pq.read_table(Path(tree["run_dir"]) / "rejected.parquet")["clip_id"].to_pylist()
    assert sorted(rejected) == sorted(gone[:2])
    none_left = variant(tree, "none_left")
    none_left["data"]["manifest"] = lose(gone)
    metrics = pretrain(prepare(none_left), LocalWorker())
    assert np.isfinite(metrics["loss"]) and "probe/lvef_mae" not in metrics
    events = read_lines(Path(none_left["run_dir"]) / "events.jsonl")
    assert [(e["step"], e["problem"]) for e in events if e["kind"] == "probe_failed"] == [
        (step, "there is no readable labelled clip in split 'val'") for step in (4, 8)
    ]


def test_an_audit_misses_the_record_of_a_checkpoint(tree: Tree) -> None:
    tree["loop"]["stop_after_step"] = 4
    pretrain_plain(tree)
    tree["loop"]["stop_after_step"] = None
    pretrain_plain(tree)
    run = RunFolder(tree["run_dir"])
    next(run.samples.glob("attempt_0001_*")).unlink()
    (finding,) = audit_run(run).findings
    assert (finding.kind, finding.step) == ("short_record", 4)
    assert "a checkpoint of step 8" in str(finding)


def test_files_obey_the_umask(tree: Tree) -> None:
    pretrain_plain(tree)
    run = RunFolder(tree["run_dir"])
    plain = (run.path / "metrics.jsonl").stat().st_mode
    assert (run.encoder / "model.safetensors").stat().st_mode == plain
    shards = list(folder_of(run.checkpoints, 8).glob("*.safetensors"))
    assert [file.stat().st_mode for file in shards] == [plain]


def test_too_many_unreadable_clips_stop_the_run(tree: Tree, tmp_path: Path) -> None:
    table = pq.read_table(tree["data"]["manifest"])
    uris = [f"gone/{i}.mp4" for i in range(len(table))]
    pq.write_table(
        table.set_column(table.column_names.index("uri"), "uri", [uris]), tmp_path / "m.parquet"
    )
    tree["data"] |= {"manifest": str(tmp_path / "m.parquet"), "max_bad_fraction": 0.01}
    with pytest.raises(BadDataError, match=r"16 of 16 samples could not be read.*max_bad_fraction"):
        pretrain_plain(tree)
    run = RunFolder(tree["run_dir"])
    rejected = pq.read_table(run.path / "rejected.parquet").to_pylist()
    assert {(r["stage"], r["type"]) for r in rejected} == {("open", "missing")}
    assert str(tmp_path) not in (run.path / "events.jsonl").read_text(), "no path in the logs"
    assert run.events("empty_step"), "a step without a readable clip changes nothing, and is said"


class PoisonedWorker(LocalWorker):
    """Plants a value in the loss of one step."""

    def __init__(self, at_backward: int, value: float) -> None:
        self._at_backward = at_backward
        self._value = value
        self.before: dict[str, torch.Tensor] = {}
        self.after: dict[str, torch.Tensor] = {}

    def engine(
        self,
        module: torch.nn.Module,
        averages: Mapping[str, str],
        config: OptimizerConfig,
        shape: StreamShape,
    ) -> Engine:
        outer = self

        class Poisoned(PlainEngine):
            count = 0

            def backward(self, loss: torch.Tensor, *, last: bool) -> None:
                self.count += 1
                if self.count == outer._at_backward + 1:
                    outer.after = snapshot(self)
                if self.count == outer._at_backward:
                    outer.before = snapshot(self)
                    loss = loss * outer._value
                super().backward(loss, last=last)

        return Poisoned(module, averages, config)


def snapshot(engine: PlainEngine) -> dict[str, torch.Tensor]:
    return {key: shard.data.clone() for key, shard in engine.shards().items()}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_changes_nothing(tree: Tree, value: float) -> None:
    worker = PoisonedWorker(3, value)
    pretrain(prepare(tree), worker)
    assert worker.before.keys() == worker.after.keys()
    assert all(torch.equal(worker.before[k], worker.after[k]) for k in worker.before)
    run = RunFolder(tree["run_dir"])
    assert [e["step"] for e in run.events("non_finite_step")] == [2]
    assert audit_run(run).num_dropped_steps == 1
    state = json.loads((folder_of(run.checkpoints, 8) / "state.json").read_text())
    assert state["loop"]["num_applied"] == 7
    assert np.isfinite(losses(tree)[-1])


@pytest.mark.integration
def test_other_seeds_give_other_runs(tree: Tree) -> None:
    first = pretrain_plain(variant(tree, "a"))
    assert pretrain_plain(variant(tree, "b")) == first
    tree["seed"] = 2
    assert pretrain_plain(variant(tree, "c")) != first


def test_a_later_start_of_the_same_folder_ends_the_earlier_one(tree: Tree) -> None:
    class Overtaken(LocalWorker):
        def report(self, metrics: dict[str, float]) -> None:
            RunFolder(tree["run_dir"]).begin_attempt(0, origin=0, source="somebody else")

    tree["loop"] |= {"probe_every_steps": 2}
    tree["probe"] = PROBE
    with pytest.raises(StorageError, match="start 2 of this run has taken its folder over"):
        pretrain(prepare(tree), Overtaken())
    assert not list(RunFolder(tree["run_dir"]).checkpoints.glob("*"))
