"""What the launcher does to a job before any worker starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from echojepa.config import validate
from echojepa.errors import ConfigError
from echojepa.launch.pretrain import PretrainJob, launch, with_absolute_paths


def test_paths_mean_the_same_in_every_process(
    tiny_tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_tree |= {"run_dir": "run", "init_from": "../encoder"}
    tiny_tree["data"]["manifest"] = "s3://bucket/manifest.parquet"
    job = with_absolute_paths(validate(tiny_tree, PretrainJob, "test"))
    assert job.run_dir == str(tmp_path / "run")
    assert job.init_from == str(tmp_path.parent / "encoder")
    assert job.fork_from is None
    assert job.data.manifest == "s3://bucket/manifest.parquet"


def test_every_size_of_an_elastic_group_must_fit_the_truncation_group(
    tiny_tree: dict[str, Any],
) -> None:
    """Found in the middle of a run, after a resize, it would stop it."""
    tiny_tree["objective"]["masks"]["truncate_group"] = 4
    tiny_tree["optimizer"]["max_micro_batch"] = 4
    tiny_tree["cluster"] = {"num_workers": 2, "max_workers": 3}
    with pytest.raises(ConfigError, match="truncate_group 4 does not fit a micro-batch of 3"):
        launch(validate(tiny_tree, PretrainJob, "test"), show_progress=False)
