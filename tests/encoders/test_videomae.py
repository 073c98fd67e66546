"""VideoMAE against the published code's numbers and against transformers; exact, or refused."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.frozen import check_twin, features
from support.golden_adapters import clip, load_case, state_dict
from support.traps import Trap
from transformers import (
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEModel,
)

from echojepa.data.sampling import ClipConfig
from echojepa.encoders.frozen import PooledFeatures, TokenFeatures
from echojepa.encoders.source import NetworkEncoder
from echojepa.encoders.videomae import VideoMaeConfig, VideoMaeNetwork, VideoMaeSource
from echojepa.errors import CheckpointError, ConfigError
from echojepa.models.attention import Grid
from echojepa.models.encoder import normalise
from echojepa.models.formats.shapes import HEADS

SPEC, OUTPUTS = load_case("videomae")
CLIPS = {"A": clip("A", 16, 64, 64)[None], "B": clip("B", 16, 48, 48)[None]}
GOLDEN = {"size": 64, "num_heads": 3}
Tensors = dict[str, torch.Tensor]


def weights(layout: str) -> Tensors:
    """The golden weights, as the original code names them."""
    part = SPEC["checkpoint"][layout]
    return state_dict(part["tensors"], SPEC["rules"], part["checks_sum_first_last"])


def source(
    folder: Path, tensors: Tensors, wrapper: str = "model", **changes: Any
) -> VideoMaeSource:
    """A checkpoint as training writes it, its arguments beside the weights."""
    beside = {"epoch": 3, "optimizer": {"state": {}}, "args": Namespace(lr=1e-3, model="vit")}
    file = folder / "videomae.pth"
    torch.save({wrapper: tensors, **beside}, file)
    return VideoMaeSource(weights=str(file), **{**GOLDEN, **changes})


def off(found: torch.Tensor, wanted: np.ndarray) -> float:
    """Largest difference."""
    assert found.shape == wanted.shape
    return float(np.abs(found.numpy() - wanted).max())


@pytest.mark.parametrize("kind", CLIPS)
def test_pretrained_tokens_are_the_published_ones(tmp_path: Path, kind: str) -> None:
    encoder = source(tmp_path, weights("pretrain")).load()
    assert encoder.clip == ClipConfig(num_frames=16, fps=7.5, size=64)
    found = encoder.encode(CLIPS[kind])
    assert isinstance(found, TokenFeatures)
    assert found.grid == Grid(8, 4, 4)
    assert off(found.tokens[0], OUTPUTS[f"pretrain_{kind}_tokens"]) < 2e-5
    mean = found.tokens[0].mean(dim=0)
    assert off(mean, OUTPUTS[f"pretrain_{kind}_mean_of_normed_tokens"]) < 1e-5


@pytest.mark.parametrize("wrapper", ["model", "module"])
@pytest.mark.parametrize("kind", CLIPS)
def test_the_finetuned_feature_is_the_published_one(
    tmp_path: Path, kind: str, wrapper: str
) -> None:
    found = source(tmp_path, weights("finetune"), wrapper).load().encode(CLIPS[kind])
    assert isinstance(found, PooledFeatures)
    assert off(found.values[0], OUTPUTS[f"finetune_{kind}_feature"]) < 1e-5


@pytest.mark.parametrize("size", SPEC["architecture"]["published_sizes"])
def test_published_sizes_have_as_many_weights_as_the_published_files(size: str) -> None:
    facts = SPEC["architecture"]["published_sizes"][size]
    shape = {"patch_size": 16, "tubelet_size": 2, "num_frames": 16, "size": 224, "head": "norm"}
    width = facts["width"]
    config = VideoMaeConfig(
        width=width, depth=facts["depth"], hidden=4 * width, num_heads=HEADS[width], **shape
    )
    assert config.num_heads == facts["heads"]
    with torch.device("meta"):
        tensors = VideoMaeNetwork(config).state_dict()
    counted = [len(tensors), sum(tensor.numel() for tensor in tensors.values())]
    assert counted == facts["of_which_encoder"]


@pytest.mark.parametrize("biases", ["q_bias, v_bias", "query.bias, value.bias"])
def test_hugging_faces_names_are_those_of_the_table(tmp_path: Path, biases: str) -> None:
    """The golden weights moved by the table: joined in the right order, or the numbers are off."""
    original = weights("pretrain")
    moved = {}
    for name, theirs, operation in SPEC["hugging_face"]["pretrain_to_VideoMAEModel"]:
        start = {"rows 0:D": 0, "rows D:2D": 96, "rows 2D:3D": 192}.get(operation)
        tensor = original[name] if start is None else original[name][start : start + 96].clone()
        if biases.startswith("query"):
            theirs = theirs.replace("q_bias", "query.bias").replace("v_bias", "value.bias")
        moved[theirs] = tensor
    save_file(moved, tmp_path / "model.safetensors")
    golden = {"image_size": 64, "num_frames": 16, "hidden_size": 96, "num_attention_heads": 3}
    config = tiny(**golden, layer_norm_eps=1e-6)
    (tmp_path / "config.json").write_text(config.to_json_string(use_diff=False))
    found = VideoMaeSource(weights=str(tmp_path)).load().encode(CLIPS["A"])
    assert isinstance(found, TokenFeatures)
    assert off(found.tokens[0], OUTPUTS["pretrain_A_tokens"]) < 2e-5


def tiny(**changes: Any) -> VideoMAEConfig:
    """A small configuration of transformers."""
    given = {
        "image_size": 32,
        "num_frames": 8,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 60,
        "decoder_num_attention_heads": 2,
        "decoder_hidden_size": 12,
        "decoder_num_hidden_layers": 1,
        "decoder_intermediate_size": 24,
        "num_labels": 3,
        "use_mean_pooling": False,
    }
    return VideoMAEConfig(**{**given, **changes})


@torch.no_grad()
def saved(folder: Path, kind: type[Any], config: VideoMAEConfig, shards: str = "5GB") -> Any:
    """A model of transformers whose weights matter everywhere, and its folder."""
    model = kind(config).eval()
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder, max_shard_size=shards)
    return model


@pytest.mark.parametrize("shards", ["5GB", "20KB"])
@pytest.mark.parametrize(
    ("kind", "pooled"),
    [
        (VideoMAEModel, False),
        (VideoMAEModel, True),
        (VideoMAEForPreTraining, False),
        (VideoMAEForVideoClassification, True),
        (VideoMAEForVideoClassification, False),
    ],
)
@torch.no_grad()
def test_transformers_computes_the_same(
    tmp_path: Path, kind: type[Any], pooled: bool, shards: str
) -> None:
    theirs = saved(tmp_path, kind, tiny(use_mean_pooling=pooled), shards)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shards == "20KB")
    encoder = VideoMaeSource(weights=str(tmp_path), fps=12.0).load()
    assert encoder.clip == ClipConfig(num_frames=8, fps=12.0, size=32)
    clips = np.random.default_rng(0).integers(0, 256, (2, 8, 32, 32, 3), np.uint8)
    pixels = normalise(torch.from_numpy(clips), torch.float32).transpose(1, 2)
    model = theirs if kind is VideoMAEModel else theirs.videomae
    wanted = model(pixels).last_hidden_state
    if kind is VideoMAEForVideoClassification and pooled:
        wanted = theirs.fc_norm(wanted.mean(dim=1))
        network = encoder.network
        assert isinstance(network, VideoMaeNetwork)
        assert network.config.pooled_eps == theirs.fc_norm.eps
    assert wanted.std() > 0.1
    assert torch.allclose(features(encoder, clips), wanted, atol=1e-5)


@pytest.mark.parametrize("layout", ["pretrain", "finetune"])
@pytest.mark.parametrize("change", ["removed", "added", "reshaped"])
@pytest.mark.parametrize("name", ["blocks.1.attn.q_bias", "patch_embed.proj.bias", "final"])
def test_one_wrong_tensor_is_named(tmp_path: Path, layout: str, change: str, name: str) -> None:
    tensors, prefix = weights(layout), {"pretrain": "encoder.", "finetune": ""}[layout]
    if name == "final":
        name = {"pretrain": "norm.weight", "finetune": "fc_norm.weight"}[layout]
    if change == "removed":
        del tensors[prefix + name]
        said = rf"missing \['{name}'\]"
    elif change == "added":
        tensors[f"{prefix}{name}.more"] = torch.zeros(3)
        said = rf"unexpected \['{name}.more'\]"
    else:
        tensors[prefix + name] = torch.zeros(5)
        said = rf"other shape \['{name}'\]"
    with pytest.raises(CheckpointError, match=said):
        source(tmp_path, tensors).load()


@pytest.mark.parametrize("name", ["decoder.more.weight", "head.weight", "mask_tokens", "norm.bias"])
def test_only_the_known_parts_of_a_decoder_are_left_out(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"unexpected \['{name} \(not below encoder.\)'\]"):
        source(tmp_path, {**weights("pretrain"), name: torch.zeros(2)}).load()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("removed", r"blocks.0.attn.qkv.weight is made of query, key and value .* 'value'"),
        ("reshaped", r"'key': \(24, 23\)"),
        ("added", r"unexpected \['pooler.weight'\]"),
        ("twice", r"unexpected \['encoder.layer.0.attention.attention.query.bias'\]"),
        ("another", r"config.json: model_type: Input should be 'videomae'"),
        ("torn", r"not a whole Hugging Face VideoMAE folder \(SafetensorError\)"),
        ("no config", r"not a whole Hugging Face VideoMAE folder \(FileNotFoundError\)"),
    ],
)
def test_a_wrong_folder_is_refused_by_name(tmp_path: Path, change: str, said: str) -> None:
    saved(tmp_path, VideoMAEModel, tiny())
    file, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    tensors, place = load_file(file), "encoder.layer.0.attention.attention."
    if change == "removed":
        del tensors[f"{place}query.weight"]
    elif change == "reshaped":
        tensors[f"{place}key.weight"] = torch.zeros(24, 23)
    elif change == "twice":
        tensors[f"{place}query.bias"] = torch.zeros(24)
    tensors |= {"pooler.weight": torch.zeros(2)} if change == "added" else {}
    save_file(tensors, file)
    if change == "torn":
        file.write_bytes(file.read_bytes()[:100])
    elif change == "no config":
        config.unlink()
    elif change == "another":
        config.write_text(config.read_text().replace('"videomae"', '"vivit"'))
    with pytest.raises(CheckpointError, match=said):
        VideoMaeSource(weights=str(tmp_path)).load()


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    file, sprung = tmp_path / "videomae.pth", tmp_path / "sprung"
    torch.save({"model": weights("finetune"), "args": Trap(sprung)}, file)
    with pytest.raises(CheckpointError, match="code in it is never run"):
        VideoMaeSource(weights=str(file), **GOLDEN).load()
    assert not sprung.exists()


@pytest.mark.parametrize("layout", ["pretrain", "finetune"])
def test_the_twin_has_the_architecture_and_no_weights(tmp_path: Path, layout: str) -> None:
    others = {name: torch.randn_like(tensor) * 0.1 for name, tensor in weights(layout).items()}
    (tmp_path / "other").mkdir()
    given = source(tmp_path, weights(layout)), source(tmp_path / "other", others)
    check_twin(*given, CLIPS["A"])


def test_settings_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    tensors = weights("pretrain")
    with pytest.raises(CheckpointError, match=r"heads of width 96 is not known.*num_heads=N"):
        source(tmp_path, tensors, num_heads=None).load()
    with pytest.raises(ConfigError, match="width 96 is not a multiple of 5 heads"):
        source(tmp_path, tensors, num_heads=5).load()
    with pytest.raises(ConfigError, match="16 frames of 60 px is not a whole number of tubelets"):
        source(tmp_path, tensors, size=60).load()
    assert source(tmp_path, tensors, size=None).load().clip.size == 224
    with pytest.raises(CheckpointError, match="not those of a video ViT.*Use VideoMAE weights"):
        source(tmp_path, {"fc.weight": torch.zeros(3)}).load()


def test_another_number_of_frames_is_refused(tmp_path: Path) -> None:
    encoder = source(tmp_path, weights("pretrain")).load()
    for frames in (8, 17, 32):
        with pytest.raises(ValueError, match=f"the clips have {frames} frames, not 16"):
            encoder.encode(clip("A", frames, 64, 64)[None])


def test_precision_changes_the_numbers_a_little(tmp_path: Path) -> None:
    whole, half = (
        features(source(tmp_path, weights("finetune"), precision=p).load(), CLIPS["A"])
        for p in ("float32", "bfloat16")
    )
    assert 0 < (whole - half).abs().max() < 0.1


def test_batches_do_not_mix_clips(tmp_path: Path) -> None:
    encoder: NetworkEncoder = source(tmp_path, weights("pretrain")).load()
    both = np.concatenate([CLIPS["A"], clip("B", 16, 64, 64)[None]])
    apart = [features(encoder, both[i : i + 1]) for i in range(2)]
    assert torch.allclose(features(encoder, both), torch.cat(apart), atol=1e-5)
