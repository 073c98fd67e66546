"""How a run begins: resumed, forked, from weights; and the starts that are refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from support.ranks import prepare, pretrain_plain, variant

from echojepa.data.manifest.patients import PatientDigests
from echojepa.errors import (
    CheckpointError,
    ConfigError,
    ManifestError,
    StorageError,
)
from echojepa.runs.audit import audit_run
from echojepa.runs.checkpoint import folder_of
from echojepa.runs.folder import RunFolder, read_lines
from echojepa.runs.shards import ShardReader

Tree = dict[str, Any]


def test_fork_takes_over_state_and_cursor(tree: Tree) -> None:
    tree["loop"]["stop_after_step"] = 4
    pretrain_plain(tree)
    fork = variant(tree, "fork")
    fork["fork_from"] = tree["run_dir"]
    fork["loop"] |= {"num_steps": 3, "stop_after_step": None}
    fork["optimizer"]["lr"] = {"peak": 1e-4, "shape": "linear", "final": 0.0}
    pretrain_plain(fork)
    run = RunFolder(fork["run_dir"])
    assert run.attempts()[0]["origin"] == 4 * 8
    assert audit_run(run).num_samples == 3 * 8
    state = json.loads((folder_of(run.checkpoints, 3) / "state.json").read_text())
    assert state["loop"]["num_applied"] == 4 + 3, "Adam's own count goes on"


@pytest.mark.integration
def test_a_fork_goes_on_in_its_sources_order(tree: Tree) -> None:
    """Also where a rollback has changed the source's seed; another seed starts another order."""
    source = RunFolder(tree["run_dir"])
    source.path.mkdir()
    source.intervene(2, 2 * 8, "test")
    (source.path / "run.json").write_text('{"run_id": "test"}')
    tree["loop"]["stop_after_step"] = 4
    pretrain_plain(tree)
    for name, seed, changes in (("same", tree["seed"], [16]), ("other", 9, [])):
        fork = variant(tree, name) | {"fork_from": tree["run_dir"], "seed": seed}
        fork["loop"] |= {"num_steps": 2, "stop_after_step": 1}
        pretrain_plain(fork)
        fork["loop"]["stop_after_step"] = None
        pretrain_plain(fork)
        run = RunFolder(fork["run_dir"])
        assert [a["inherited_changes"] for a in run.attempts()] == [changes, changes]
        assert not audit_run(run).findings


def test_a_cooldown_changes_resolution_frames_and_rate(tree: Tree) -> None:
    tree["loop"]["stop_after_step"] = 4
    pretrain_plain(tree)
    cooldown = variant(tree, "cooldown")
    cooldown["fork_from"] = tree["run_dir"]
    cooldown["data"]["clip"] = {"num_frames": 6, "fps": 12.0, "size": 56}
    cooldown["loop"] |= {"num_steps": 2, "stop_after_step": None}
    cooldown["optimizer"]["lr"] = {"peak": 1e-4, "shape": "linear", "final": 0.0}
    assert len(pretrain_plain(cooldown)) == 2
    lines = read_lines(Path(cooldown["run_dir"]) / "metrics.jsonl")
    assert [line["lr"] for line in lines] == pytest.approx([5e-5, 0.0])
    assert audit_run(RunFolder(cooldown["run_dir"])).num_samples == 2 * 8


@pytest.mark.integration
def test_weights_are_not_taken_under_other_rotary_positions(tree: Tree) -> None:
    """Shapes do not tell them, so that nothing but the features would show it."""
    pretrain_plain(tree)
    other = variant(tree, "other") | {"init_from": f"{tree['run_dir']}/encoder"}
    other["model"]["encoder"]["rotary"] = {"frequencies": "paired"}
    with pytest.raises(CheckpointError, match="the weights want rotary frequencies='tiled'"):
        pretrain_plain(other)


def test_init_takes_weights_only(tree: Tree) -> None:
    pretrain_plain(tree)
    source = RunFolder(tree["run_dir"])
    for name, path in (("encoder", source.encoder), ("run", source.path)):
        new = variant(tree, name)
        new["init_from"] = str(path)
        new["optimizer"]["lr"] = {"peak": 0.0}
        new["optimizer"]["weight_decay"] = {"peak": 0.0}
        new["loop"] |= {"num_steps": 1, "checkpoint_every_steps": 1}
        pretrain_plain(new)
        with (
            ShardReader(folder_of(RunFolder(new["run_dir"]).checkpoints, 1)) as begun,
            ShardReader(folder_of(source.checkpoints, 8)) as given,
        ):
            key = "norm.weight"
            learnt = "weight/predictor.predictor_proj.weight"
            assert torch.equal(begun.whole(learnt), given.whole(learnt))
            old = given.whole(f"weight/{'target' if name == 'encoder' else 'encoder'}.{key}")
            assert torch.equal(begun.whole(f"weight/encoder.{key}"), old)
            assert torch.equal(
                begun.whole("weight/target.norm.weight"),
                given.whole("weight/target.norm.weight").lerp(old, 1 - 0.99925),
            )


def test_init_from_another_architecture_is_refused(tree: Tree) -> None:
    pretrain_plain(tree)
    for source in ("encoder", ""):
        other = variant(tree, f"wide{source}")
        other["model"]["encoder"]["width"] = 64
        other["init_from"] = str(Path(tree["run_dir"]) / source)
        with pytest.raises(CheckpointError, match="another architecture"):
            pretrain_plain(other)


def test_a_start_that_failed_binds_nothing(tree: Tree) -> None:
    tree["init_from"] = str(Path(tree["run_dir"]).parent / "mistyped")
    with pytest.raises(CheckpointError, match="no valid checkpoint"):
        pretrain_plain(tree)
    tree["init_from"] = None
    tree["optimizer"]["lr"]["peak"] = 2e-3
    assert len(pretrain_plain(tree)) == 8
    assert not audit_run(RunFolder(tree["run_dir"])).findings
    seen = PatientDigests.read(Path(tree["run_dir"]))
    assert seen is not None and seen.complete, "weights that were never read have seen nobody"


def test_resume_refuses_another_run(tree: Tree) -> None:
    tree["loop"]["stop_after_step"] = 2
    pretrain_plain(tree)
    changed = copy.deepcopy(tree)
    changed["optimizer"]["lr"]["peak"] = 2e-3
    changed["loop"]["global_batch"] = 4
    with pytest.raises(ConfigError, match=r"optimizer.lr.peak, loop.global_batch.*fork_from"):
        pretrain_plain(changed)
    tree["optimizer"]["max_micro_batch"] = 4
    tree["loop"]["log_every_steps"] = 2
    tree["data"]["max_bad_fraction"] = 0.5
    pretrain_plain(tree)  # what does not touch the mathematics may change


def test_resume_refuses_a_changed_manifest(tree: Tree, tmp_path: Path) -> None:
    original = Path(tree["data"]["manifest"])
    table = pq.read_table(original)
    uris = [str(original.parent / uri) for uri in table["uri"].to_pylist()]
    table = table.set_column(table.column_names.index("uri"), "uri", [uris])
    manifest = tmp_path / "manifest.parquet"
    pq.write_table(table, manifest)
    tree["data"]["manifest"] = str(manifest)
    tree["loop"]["stop_after_step"] = 2
    pretrain_plain(tree)
    pq.write_table(table.slice(1), manifest)
    with pytest.raises(ManifestError, match="the manifest has changed"):
        pretrain_plain(tree)
    with pytest.raises(ManifestError, match="the manifest has changed"):
        audit_run(RunFolder(tree["run_dir"]))


def test_folders_that_cannot_be_used(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    tree["run_dir"] = str(tmp_path / "file" / "run")
    with pytest.raises(StorageError, match="the run folder cannot be written"):
        prepare(tree)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("")
    tree["run_dir"] = str(tmp_path / "foreign")
    with pytest.raises(StorageError, match="holds no run"):
        prepare(tree)
