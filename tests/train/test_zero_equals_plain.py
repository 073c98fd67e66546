"""ZeRO-3 on any number of ranks trains exactly as one plain process does."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.ranks import pretrain_on_ranks, pretrain_plain

from echojepa.runs.folder import read_lines

Tree = dict[str, Any]


@pytest.fixture
def tree(tiny_tree: Tree) -> Tree:
    """Ten AdamW steps, two masks, activation checkpointing, a large rate and decay."""
    tiny_tree["model"]["activation_checkpointing"] = True
    tiny_tree["optimizer"] |= {
        "lr": {"peak": 1e-2},
        "weight_decay": {"peak": 0.4},
        "momentum": {"peak": 0.99},
    }
    tiny_tree["loop"] |= {"num_steps": 10, "checkpoint_every_steps": 5, "log_every_steps": 1}
    return tiny_tree


def variant(tree: Tree, name: str) -> Tree:
    """The same run in another folder."""
    other = copy.deepcopy(tree)
    other["run_dir"] = f"{tree['run_dir']}_{name}"
    return other


def largest_difference(a: list[float], b: list[float]) -> float:
    assert len(a) == len(b) == 10
    return float(np.abs(np.array(a) - np.array(b)).max())


def test_two_ranks_equal_one_process(tree: Tree) -> None:
    plain = pretrain_plain(variant(tree, "plain"))
    assert plain[-1] < plain[0], "nothing was learnt, equality would mean little"
    two = pretrain_on_ranks(variant(tree, "two"), 2)
    assert largest_difference(plain, two) < 1e-4


@pytest.mark.integration
def test_two_ranks_at_a_small_rate_agree_to_six_digits(tree: Tree) -> None:
    tree["optimizer"]["lr"] = {"peak": 1e-4}
    plain = pretrain_plain(variant(tree, "plain"))
    assert largest_difference(plain, pretrain_on_ranks(variant(tree, "two"), 2)) < 1e-6


@pytest.mark.integration
def test_accumulation_changes_nothing(tree: Tree) -> None:
    plain = pretrain_plain(variant(tree, "plain"))
    tree["optimizer"]["max_micro_batch"] = 2
    assert largest_difference(plain, pretrain_on_ranks(variant(tree, "two"), 2)) < 1e-4
    assert largest_difference(plain, pretrain_plain(variant(tree, "accumulated"))) < 1e-4


@pytest.mark.integration
def test_the_dense_objective_and_what_it_exports(tree: Tree) -> None:
    """Two levels, visible tokens weighted by distance; the encoder folder starts the next run."""
    tree["model"]["encoder"] |= {"num_levels": 2, "rotary": {"frequencies": "paired", "span": 16}}
    tree["model"]["predictor"]["context_head"] = True
    tree["objective"] |= {"context_weight": 0.5, "context_distance": True}
    plain = pretrain_plain(variant(tree, "plain"))
    two = variant(tree, "two")
    assert largest_difference(plain, pretrain_on_ranks(two, 2)) < 1e-4
    last = read_lines(Path(two["run_dir"]) / "metrics.jsonl")[-1]
    parts = [last[f"loss_{kind}_{i}"] for kind in ("mask", "context") for i in range(2)]
    assert last["loss"] == pytest.approx(sum(parts) / 2)
    next_run = variant(tree, "next") | {"init_from": f"{two['run_dir']}/encoder"}
    assert pretrain_plain(next_run)[0] < plain[0]


@pytest.mark.integration
def test_three_ranks_with_padding_and_unreadable_clips(tree: Tree, tmp_path: Path) -> None:
    tree["data"]["manifest"] = str(with_missing_files(Path(tree["data"]["manifest"]), tmp_path))
    tree["data"]["max_bad_fraction"] = 0.5
    plain = pretrain_plain(variant(tree, "plain"))
    three = pretrain_on_ranks(variant(tree, "three"), 3)
    assert largest_difference(plain, three) < 1e-4
    rejected = pq.read_table(Path(variant(tree, "three")["run_dir"]) / "rejected.parquet")
    assert set(rejected["type"].to_pylist()) == {"missing"}


@pytest.mark.integration
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (3, 2)])
def test_resume_at_another_world_size(tree: Tree, before: int, after: int) -> None:
    plain = pretrain_plain(variant(tree, "plain"))
    resumed = variant(tree, "resumed")
    resumed["loop"]["stop_after_step"] = 5
    pretrain_on_ranks(resumed, before)
    resumed["loop"]["stop_after_step"] = None
    assert largest_difference(plain, pretrain_on_ranks(resumed, after)) < 1e-4


@pytest.mark.integration
def test_resume_in_bfloat16_goes_on_as_if_nothing_had_happened(tree: Tree) -> None:
    tree["optimizer"]["precision"] = "bfloat16"
    tree["model"]["encoder"] |= {"width": 32, "depth": 1}
    tree["optimizer"]["lr"] = {"peak": 1e-3}
    undisturbed = pretrain_on_ranks(variant(tree, "undisturbed"), 2)
    resumed = variant(tree, "resumed")
    resumed["loop"]["stop_after_step"] = 5
    pretrain_on_ranks(resumed, 2)
    resumed["loop"]["stop_after_step"] = None
    assert largest_difference(undisturbed, pretrain_on_ranks(resumed, 2)) < 1e-6


def with_missing_files(manifest: Path, folder: Path) -> Path:
    """A copy of a manifest in which one clip in twelve points nowhere."""
    table = pq.read_table(manifest)
    uris = [str((manifest.parent / uri).resolve()) for uri in table["uri"].to_pylist()]
    uris = [f"{uri}.gone" if i % 12 == 5 else uri for i, uri in enumerate(uris)]
    column = table.column_names.index("uri")
    out = folder / "broken.parquet"
    pq.write_table(table.set_column(column, "uri", pa.array(uris)), out)
    return out
