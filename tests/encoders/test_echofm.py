"""EchoFM against the published code's numbers; every tensor of its encoder, or refused."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.frozen import check_twin, features
from support.golden_adapters import clip, load_case, state_dict
from support.traps import Trap

from echojepa.data.sampling import ClipConfig
from echojepa.encoders.echofm import EchoFmNetwork, EchoFmSource
from echojepa.encoders.frozen import TokenFeatures
from echojepa.encoders.vit import VitConfig
from echojepa.errors import CheckpointError, ConfigError
from echojepa.models.attention import Grid
from echojepa.models.formats.shapes import HEADS

SPEC, OUTPUTS = load_case("echofm")
LAYOUT = SPEC["checkpoint"]
CLIPS = {"A": clip("A", 32, 64, 64)[None], "B": clip("B", 32, 48, 48)[None]}
Tensors = dict[str, torch.Tensor]


def weights() -> Tensors:
    """The golden weights."""
    return state_dict(LAYOUT["tensors"], SPEC["rules"], LAYOUT["checks_sum_first_last"])


def source(folder: Path, tensors: Tensors, **changes: Any) -> EchoFmSource:
    """A file as it is published: what the model was made with beside the weights."""
    file = folder / "echofm.pth"
    torch.save({"model": tensors, "model_args": {"num_frames": 32}, "args": Namespace(lr=1)}, file)
    return EchoFmSource(weights=str(file), **{"num_heads": 3, **changes})


@pytest.mark.parametrize("kind", CLIPS)
def test_tokens_are_the_published_ones(tmp_path: Path, kind: str) -> None:
    encoder = source(tmp_path, weights()).load()
    assert encoder.clip == ClipConfig(num_frames=32, fps=30.0, size=64)
    found = encoder.encode(CLIPS[kind])
    assert isinstance(found, TokenFeatures)
    assert found.grid == Grid(8, 4, 4)
    tokens = found.tokens[0].numpy()
    assert np.abs(tokens - OUTPUTS[f"{kind}_tokens"]).max() < 2e-5
    assert np.abs(tokens.mean(axis=0) - OUTPUTS[f"{kind}_feature"]).max() < 1e-5


def test_the_published_size_has_the_published_tensors() -> None:
    facts = SPEC["architecture"]["published_size"]
    width = facts["width"]
    config = VitConfig(
        width=width,
        depth=facts["depth"],
        hidden=4 * width,
        num_heads=HEADS[width],
        patch_size=facts["patch"],
        tubelet_size=facts["t_patch"],
        num_frames=facts["frames"],
        size=facts["size"],
    )
    assert config.num_heads == facts["heads"]
    assert config.grid == Grid(*facts["token_grid"])
    with torch.device("meta"):
        tensors = EchoFmNetwork(config).state_dict()
    counted = len(tensors), sum(tensor.numel() for tensor in tensors.values())
    assert counted == (facts["encoder_tensors"], facts["encoder_values"])
    published = {name: shape for name, shape, *_ in LAYOUT["published_size_tensors"]}
    assert all(list(tensor.shape) == published[name] for name, tensor in tensors.items())


def test_older_files_without_the_norm_of_the_frame_branch_will_do(tmp_path: Path) -> None:
    tensors = {n: t for n, t in weights().items() if not n.startswith("prj_norm.")}
    found = features(source(tmp_path, tensors).load(), CLIPS["A"])
    assert np.abs(found[0].numpy() - OUTPUTS["A_tokens"]).max() < 2e-5


@pytest.mark.parametrize("change", ["removed", "added", "reshaped"])
@pytest.mark.parametrize("name", ["cls_token", "blocks.1.attn.k.bias", "norm.weight"])
def test_one_wrong_tensor_is_named(tmp_path: Path, change: str, name: str) -> None:
    tensors = weights()
    if change == "removed":
        del tensors[name]
        said = rf"missing \['{name}'\]"
    elif change == "added":
        tensors[f"{name}.more"] = torch.zeros(3)
        said = rf"unexpected \['{name}.more'\]"
    else:
        tensors[name] = torch.zeros(5)
        said = rf"other shape \['{name}'\]"
    with pytest.raises(CheckpointError, match=said):
        source(tmp_path, tensors).load()


@pytest.mark.parametrize(
    "name", ["decoder_head.weight", "decoder_pos_embed", "mask_tokens", "prj_norm.scale", "head"]
)
def test_only_the_known_parts_are_left_out(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"unexpected \['{name}'\]"):
        source(tmp_path, {**weights(), name: torch.zeros(2)}).load()


@pytest.mark.parametrize("name", ["pos_embed_spatial", "pos_embed_temporal"])
def test_positions_tell_the_size_of_clips(tmp_path: Path, name: str) -> None:
    tensors = weights()
    fewer = 9 if name == "pos_embed_spatial" else 4
    tensors[name] = tensors[name][:, :fewer].clone()
    clip_config = source(tmp_path, tensors).load().clip
    sides = {"pos_embed_spatial": (32, 48), "pos_embed_temporal": (16, 64)}
    assert (clip_config.num_frames, clip_config.size) == sides[name]
    tensors[name] = torch.zeros(1, 15, 96)
    if name == "pos_embed_spatial":
        with pytest.raises(CheckpointError, match=r"other shape \['pos_embed_spatial'\]"):
            source(tmp_path, tensors).load()
    del tensors[name]
    with pytest.raises(CheckpointError, match=f"positions are missing or damaged.*{name}"):
        source(tmp_path, tensors).load()


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    file, sprung = tmp_path / "echofm.pth", tmp_path / "sprung"
    torch.save({"model": weights(), "model_args": Trap(sprung)}, file)
    with pytest.raises(CheckpointError, match="code in it is never run"):
        EchoFmSource(weights=str(file), num_heads=3).load()
    assert not sprung.exists()


def test_the_twin_has_the_architecture_and_no_weights(tmp_path: Path) -> None:
    others = {name: torch.randn_like(tensor) * 0.1 for name, tensor in weights().items()}
    (tmp_path / "other").mkdir()
    check_twin(source(tmp_path, weights()), source(tmp_path / "other", others), CLIPS["A"])


def test_settings_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"heads of width 96 is not known.*num_heads=N"):
        source(tmp_path, weights(), num_heads=None).load()
    with pytest.raises(ConfigError, match="width 96 is not a multiple of 5 heads"):
        source(tmp_path, weights(), num_heads=5).load()


def test_another_number_of_frames_is_refused(tmp_path: Path) -> None:
    encoder = source(tmp_path, weights()).load()
    for frames in (16, 33, 64):
        with pytest.raises(ValueError, match=f"the clips have {frames} frames, not 32"):
            encoder.encode(clip("A", frames, 64, 64)[None])


def test_precision_changes_the_numbers_a_little(tmp_path: Path) -> None:
    whole, half = (
        features(source(tmp_path, weights(), precision=p).load(), CLIPS["A"])
        for p in ("float32", "bfloat16")
    )
    assert 0 < (whole - half).abs().max() < 0.2
