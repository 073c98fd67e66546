"""Published V-JEPA weights read directly: the numbers of their code, and of an imported folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support import vjepa21
from support.frozen import check_twin, features
from support.paths import DATA
from support.traps import Trap
from transformers import VJEPA2Config, VJEPA2Model

from echojepa.data.sampling import ClipConfig
from echojepa.encoders.ours import OurNetwork, OurSource
from echojepa.encoders.vjepa2 import VJepa2Source
from echojepa.errors import CheckpointError, ConfigError
from echojepa.models.encoder import VideoEncoder, normalise
from echojepa.models.formats.import_weights import ImportConfig, import_weights

GOLDEN = DATA / "vjepa2_tiny.pt"
CLIPS = np.random.default_rng(0).integers(0, 256, (2, 4, 32, 32, 3), np.uint8)


def golden(**changes: Any) -> VJepa2Source:
    """The golden checkpoint in the layout of V-JEPA 2's own code."""
    return VJepa2Source(**{"weights": str(GOLDEN), "num_heads": 2, "size": 32, **changes})


def inside(source: VJepa2Source) -> VideoEncoder:
    """The network that takes pixels."""
    network = source.load().network
    assert isinstance(network, OurNetwork)
    return network.encoder


@pytest.mark.parametrize("case", ["vjepa2_tiny", "vjepa2_giantlike"])
@pytest.mark.parametrize(("branch", "wanted"), [("target", "full_target"), ("online", "full")])
@torch.no_grad()
def test_features_are_the_published_ones(case: str, branch: str, wanted: str) -> None:
    heads = json.loads((DATA / f"{case}.json").read_text())["num_heads"]
    arrays = np.load(DATA / f"{case}.npz")
    source = golden(weights=str(DATA / f"{case}.pt"), num_heads=heads, branch=branch)
    found = inside(source)(torch.from_numpy(arrays["x"]))
    assert torch.allclose(found, torch.from_numpy(arrays[wanted]), rtol=0, atol=1e-4)
    assert not torch.allclose(
        *(torch.from_numpy(arrays[n]) for n in ("full", "full_target")), atol=1e-3
    )


def test_it_is_what_an_imported_folder_gives(tmp_path: Path) -> None:
    options = ImportConfig(num_heads=2, predictor_heads=2, size=48, num_frames=4, fps=6.0)
    import_weights(GOLDEN, tmp_path / "imported", options)
    imported = OurSource(path=str(tmp_path / "imported")).load()
    direct = golden(size=48, num_frames=4, fps=6.0).load()
    assert direct.clip == imported.clip == ClipConfig(num_frames=4, fps=6.0, size=48)
    assert torch.equal(features(direct, CLIPS), features(imported, CLIPS))


@pytest.mark.parametrize("shards", ["5GB", "40KB"])
@torch.no_grad()
def test_transformers_computes_the_same(tmp_path: Path, shards: str) -> None:
    theirs = hugging_face(tmp_path, shards)
    encoder = VJepa2Source(weights=str(tmp_path)).load()
    assert encoder.clip == ClipConfig(num_frames=4, fps=8.0, size=32)
    pixels = normalise(torch.from_numpy(CLIPS), torch.float32).transpose(1, 2)
    wanted = theirs(pixels, skip_predictor=True).last_hidden_state
    assert wanted.std() > 0.1
    assert torch.allclose(features(encoder, CLIPS), wanted, atol=1e-4)


def hugging_face(folder: Path, shards: str = "5GB") -> VJEPA2Model:
    """A small model of transformers, saved."""
    config = VJEPA2Config(
        crop_size=32,
        frames_per_clip=4,
        hidden_size=44,
        num_attention_heads=2,
        num_hidden_layers=2,
        mlp_ratio=4.0,
        pred_hidden_size=24,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
        pred_num_mask_tokens=1,
        initializer_range=0.3,
    )
    model = VJEPA2Model(config).eval()
    model.save_pretrained(folder, max_shard_size=shards)
    return model


@pytest.mark.parametrize("levels", [1, 4])
@torch.no_grad()
def test_a_file_of_the_dense_variant_gives_its_last_level(tmp_path: Path, levels: int) -> None:
    weights = vjepa21.random_weights(levels=levels)
    content = {"ema_encoder": weights["encoder"], "predictor": weights["predictor"]}
    torch.save(content, tmp_path / "dense.pt")
    source = golden(weights=str(tmp_path / "dense.pt"), num_heads=vjepa21.HEADS, size=64)
    encoder = inside(source)
    assert encoder.config.num_levels == 1
    pixels = torch.randn(1, 3, 4, 64, 48)
    keep = torch.arange(2 * 4 * 3)[None]
    wanted = vjepa21.encode(weights["encoder"], pixels, keep, levels=1)
    assert torch.allclose(encoder(pixels), wanted, atol=1e-4)


@pytest.mark.parametrize("change", ["removed", "added", "reshaped"])
@pytest.mark.parametrize("name", ["norm.bias", "blocks.1.attn.qkv.weight"])
def test_one_wrong_tensor_is_named(tmp_path: Path, change: str, name: str) -> None:
    content = torch.load(GOLDEN, weights_only=True)
    target, full = content["target_encoder"], f"module.backbone.{name}"
    assert full in target
    if change == "removed":
        del target[full]
        said = rf"missing \['{name}'\]"
    elif change == "added":
        target[f"{full}.more"] = torch.zeros(3)
        said = rf"unexpected \['{name}.more'\]"
    else:
        target[full] = torch.zeros(5)
        said = rf"other shape \['{name}'\]"
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError, match=said):
        golden(weights=str(tmp_path / "odd.pt")).load()
    golden(weights=str(tmp_path / "odd.pt"), branch="online").load()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("removed", r"missing \['blocks.0.attn.qkv.weight'\], unexpected .*qkv.weight.key"),
        ("reshaped", r"missing \['blocks.0.attn.qkv.weight'\], unexpected .*qkv.weight.key"),
        ("added", r"unexpected \['encoder.pooler.weight'\]"),
    ],
)
def test_one_wrong_tensor_of_a_folder_is_named(tmp_path: Path, change: str, said: str) -> None:
    hugging_face(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors, query = load_file(file), "encoder.layer.0.attention.query.weight"
    removed = tensors.pop(query)
    if change == "reshaped":
        tensors[query] = removed[:, :-1].clone()
    elif change == "added":
        tensors |= {query: removed, "encoder.pooler.weight": torch.zeros(2)}
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=said):
        VJepa2Source(weights=str(tmp_path)).load()


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    file, sprung = tmp_path / "weights.pt", tmp_path / "sprung"
    torch.save({"encoder": Trap(sprung)}, file)
    with pytest.raises(CheckpointError, match="code in it is never run"):
        golden(weights=str(file)).load()
    assert not sprung.exists()


def test_the_twin_has_the_architecture_and_no_weights() -> None:
    check_twin(golden(branch="target"), golden(branch="online"), CLIPS)


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"does not say the size of its clips.*size=PIXELS"):
        golden(size=None).load()
    with pytest.raises(CheckpointError, match=r"heads of width .* is not known.*num_heads=N"):
        golden(num_heads=None).load()
    with pytest.raises(ConfigError, match=r"is not a multiple of 7 heads"):
        golden(num_heads=7).load()
    assert golden().load().clip.num_frames == 16
