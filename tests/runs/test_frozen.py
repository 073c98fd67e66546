"""Which encoders are compared: what a path stands for, twins, and every checkpoint that is left."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from support.bench import Bench
from support.paths import contents
from support.ranks import pretrain_plain
from support.tiny import tiny_config

from echojepa.data.sampling import ClipConfig
from echojepa.encoders.custom import CustomSource
from echojepa.encoders.ours import OurSource, UntrainedSource
from echojepa.encoders.source import Source
from echojepa.errors import CheckpointError, ConfigError, StorageError
from echojepa.models.encoder import EncoderConfig
from echojepa.models.weights import load_encoder
from echojepa.runs.export import export_encoder
from echojepa.runs.frozen import compared

UNTRAINED = UntrainedSource(
    encoder=EncoderConfig(width=24, depth=1, num_heads=2, patch_size=8),
    clip=ClipConfig(num_frames=4, fps=10.0, size=16),
)
CUSTOM = CustomSource(factory="support.frozen:features")


@pytest.fixture(scope="module")
def run(phantom_manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the checkpoints of steps 2 and 4."""
    tree = tiny_config(phantom_manifest, tmp_path_factory.mktemp("frozen") / "run")
    tree["loop"] |= {"num_steps": 4, "checkpoint_every_steps": 2}
    tree["optimizer"]["lr"]["warmup_steps"] = 2
    pretrain_plain(tree)
    return Path(tree["run_dir"])


def step(run: Path, number: int) -> Path:
    return run / "checkpoints" / f"step_{number:08d}"


@pytest.fixture
def copied_run(run: Path, tmp_path: Path) -> Path:
    """One that a test may damage."""
    copy = tmp_path / "run"
    for name, content in contents(run).items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(content)
    return copy


def weights_of(source: Source) -> dict[str, torch.Tensor]:
    assert isinstance(source, OurSource)
    return load_encoder(source.path).state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def alone(path: Path, folder: Path) -> Source:
    """What one path stands for."""
    (found,) = compared({"a": OurSource(path=str(path))}, None, None, folder).values()
    return found


def test_a_run_stands_for_its_newest_checkpoint_and_a_checkpoint_for_itself(
    run: Path, tmp_path: Path
) -> None:
    first, last = (
        load_encoder(export_encoder(step(run, n), tmp_path / str(n))).state_dict() for n in (2, 4)
    )
    assert not same(first, last)
    of_run = alone(run, tmp_path / "a")
    assert same(weights_of(of_run), last)
    assert of_run.origin() == tmp_path / "a" / "a"
    assert (tmp_path / "a" / "a" / "patients.parquet").is_file()
    assert same(weights_of(alone(step(run, 2), tmp_path / "b")), first)
    # Again into the same folder, as when the run has gone on meanwhile.
    assert same(weights_of(alone(run, tmp_path / "b")), last)


def test_a_damaged_newest_checkpoint_is_passed_over(
    run: Path, copied_run: Path, tmp_path: Path
) -> None:
    (step(copied_run, 4) / "state.json").unlink()
    expected = weights_of(alone(step(run, 2), tmp_path / "b"))
    assert same(weights_of(alone(copied_run, tmp_path / "a")), expected)
    with pytest.raises(CheckpointError, match="the checkpoint is damaged: state.json is missing"):
        alone(step(copied_run, 4), tmp_path / "c")


def test_an_encoder_folder_stays_where_it_is(bench: Bench, tmp_path: Path) -> None:
    assert alone(bench.encoder, tmp_path / "a") == OurSource(path=str(bench.encoder))
    assert not (tmp_path / "a").exists()


def test_trained_encoders_with_weights_have_twins(bench: Bench, run: Path, tmp_path: Path) -> None:
    trained = OurSource(path=str(bench.encoder), batch=3)
    encoders: dict[str, Source] = {
        "trained": trained,
        "run": OurSource(path=str(run)),
        "untrained": UNTRAINED,
        "random": trained.model_copy(update={"random_seed": 5}),
        "custom": CUSTOM,
    }
    found = compared(encoders, 9, None, tmp_path)
    twins = ["trained (random weights)", "run (random weights)"]
    assert list(found) == ["trained", twins[0], "run", twins[1], "untrained", "random", "custom"]
    assert found[twins[0]] == trained.model_copy(update={"random_seed": 9})
    assert found[twins[1]] == found["run"].model_copy(update={"random_seed": 9})
    assert {name: found[name] for name in ("untrained", "random", "custom")} == {
        name: encoders[name] for name in ("untrained", "random", "custom")
    }
    assert list(compared(encoders, None, None, tmp_path)) == list(encoders)


def test_every_checkpoint_that_is_left_is_ranked_without_a_twin(run: Path, tmp_path: Path) -> None:
    found = compared({"run": OurSource(path=str(run))}, 0, str(run), tmp_path)
    assert list(found) == ["run", "run (random weights)", "step 2", "step 4"]
    assert same(weights_of(found["step 4"]), weights_of(found["run"]))
    assert not same(weights_of(found["step 2"]), weights_of(found["run"]))


def test_a_run_without_checkpoints_cannot_be_ranked(tmp_path: Path) -> None:
    """A misspelt path would otherwise be an evaluation without them."""
    with pytest.raises(CheckpointError, match="the run has no checkpoint to rank"):
        compared({"a": UNTRAINED}, 0, str(tmp_path / "typo"), tmp_path)


@pytest.mark.parametrize("name", ["trained (random weights)", "step 2", "predict mean"])
def test_no_two_have_the_same_name(bench: Bench, run: Path, tmp_path: Path, name: str) -> None:
    """Results and folders are keyed by it: one would be told as the other."""
    encoders = {"trained": OurSource(path=str(bench.encoder)), name: UNTRAINED}
    with pytest.raises(ConfigError, match=f"the name '{re.escape(name)}' is given"):
        compared(encoders, 0, str(run), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    if name != "predict mean":  # nothing else has it now
        assert name in compared(encoders, None, None, tmp_path)


def test_a_folder_that_cannot_be_written_is_said(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="the encoder cannot be exported"):
        alone(run, tmp_path / "file")
