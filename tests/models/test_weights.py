"""Encoder folders: exact round trips, and one clear error for everything that can be wrong."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.teachers import write_teacher
from support.traps import Trap

from echojepa.errors import CheckpointError
from echojepa.models.encoder import EncoderConfig, VideoEncoder
from echojepa.models.weights import (
    encoder_digest,
    is_encoder_folder,
    load_encoder,
    load_encoder_weights,
    read_config,
    save_encoder,
)

CONFIG = EncoderConfig(width=24, depth=2, num_heads=2, mlp_ratio=48 / 11, patch_size=4)
CLIP = {"num_frames": 4, "fps": 10.0, "size": 8}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A valid encoder folder."""
    weights = VideoEncoder(CONFIG).state_dict()
    return save_encoder(tmp_path / "deep" / "encoder", CONFIG, weights, CLIP, "# A card\n")


def refusal(folder: Path) -> CheckpointError:
    """The error of a load that must fail."""
    with pytest.raises(CheckpointError) as caught:
        load_encoder(folder)
    assert caught.value.where == str(folder)
    assert "\n" not in str(caught.value)
    return caught.value


@torch.no_grad()
def test_a_round_trip_is_exact(tmp_path: Path) -> None:
    encoder = VideoEncoder(CONFIG)
    folder = save_encoder(tmp_path / "e", CONFIG, encoder.state_dict(), CLIP, "# A card\n")
    again = load_encoder(folder)
    assert again.config == CONFIG
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    clip = torch.randn(1, 3, 4, 8, 8)
    assert torch.equal(again(clip), encoder.eval()(clip))
    assert read_config(folder) == (CONFIG, CLIP)
    assert (folder / "README.md").read_text() == "# A card\n"
    assert is_encoder_folder(folder)


def test_a_loaded_encoder_is_frozen_and_float32(folder: Path) -> None:
    encoder = load_encoder(str(folder))
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


def test_strided_weights_are_saved_by_value(tmp_path: Path) -> None:
    weights = VideoEncoder(CONFIG).state_dict()
    name = "blocks.0.mlp.fc1.weight"
    weights[name] = weights[name].t().contiguous().t()
    assert not weights[name].is_contiguous()
    folder = save_encoder(tmp_path / "e", CONFIG, weights, CLIP, "")
    assert torch.equal(load_encoder(folder).state_dict()[name], weights[name])


def test_a_folder_that_is_none(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "nowhere", tmp_path / "empty", tmp_path / "file"):
        assert not is_encoder_folder(path)
        assert refusal(path).what == "not an encoder folder"
    (folder / "model.safetensors").unlink()
    assert not is_encoder_folder(folder)
    assert "cannot be read" in refusal(folder).what


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "{}",
        '{"format": "another", "encoder": {}, "clip": {}}',
        '{"format": "echojepa-encoder", "clip": {}}',
        '{"format": "echojepa-encoder", "encoder": {"width": 24}, "clip": {}}',
        '{"format": "echojepa-encoder", "encoder": {"width": "24"}, "clip": {}}',
        "\ud800",
    ],
)
def test_a_config_that_is_none(folder: Path, text: str) -> None:
    (folder / "config.json").write_bytes(text.encode(errors="surrogatepass"))
    assert refusal(folder).what == "not an encoder folder"


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights(folder: Path, share: float) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "model.safetensors cannot be read" in refusal(folder).what


def test_weights_that_are_a_folder(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.unlink()
    path.mkdir()
    assert "model.safetensors cannot be read" in refusal(folder).what


def test_a_pickle_in_disguise_executes_nothing(folder: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    disguised = pickle.dumps(Trap(trap))
    pickle.loads(disguised)
    assert trap.exists()
    trap.unlink()
    for bomb in (disguised, b"\x80\x02" + disguised):
        (folder / "model.safetensors").write_bytes(bomb)
        assert "cannot be read" in refusal(folder).what
    torch.save({"bomb": Trap(trap)}, folder / "model.safetensors")
    assert "cannot be read" in refusal(folder).what
    assert not trap.exists()


def test_missing_unexpected_and_misshapen_tensors_are_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["norm.scale"] = weights.pop("norm.weight")
    weights["blocks.1.attn.proj.bias"] = torch.zeros(25)
    save_file(weights, path)
    error = refusal(folder)
    for name in ("norm.weight", "norm.scale", "blocks.1.attn.proj.bias"):
        assert name in error.what
    missing, unexpected = error.what.index("missing"), error.what.index("unexpected")
    assert missing < error.what.index("norm.weight") < unexpected < error.what.index("norm.scale")


def test_a_tensor_of_another_shape_alone_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["norm.weight"] = weights["norm.weight"][None]
    save_file(weights, path)
    assert "other shape ['norm.weight']" in refusal(folder).what


def test_weights_of_another_architecture(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    content["encoder"]["depth"] = 3
    (folder / "config.json").write_text(json.dumps(content))
    assert "blocks.2." in refusal(folder).what


def test_a_refused_load_changes_no_weight(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    del weights["norm.weight"]
    save_file(weights, path)
    encoder = VideoEncoder(CONFIG)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    with pytest.raises(CheckpointError):
        load_encoder_weights(encoder, folder)
    assert all(torch.equal(encoder.state_dict()[name], before[name]) for name in before)


def test_the_digest_is_that_of_weights_and_architecture(tmp_path: Path) -> None:
    teacher = write_teacher(tmp_path / "teacher")
    before = encoder_digest(teacher)
    (teacher / "README.md").write_text("another card")
    assert encoder_digest(teacher) == before
    for name in ("config.json", "model.safetensors"):
        original = (teacher / name).read_bytes()
        (teacher / name).write_bytes(original.replace(b'"num_heads": 2', b'"num_heads": 4') + b" ")
        assert encoder_digest(teacher) != before
        (teacher / name).write_bytes(original)
    assert encoder_digest(teacher) == before
