"""Published formats in and out: exact, complete, or refused by name; nothing in a file runs."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from support.paths import DATA
from support.traps import Trap
from torch.nn import functional as F

from echojepa.errors import CheckpointError
from echojepa.models.encoder import EncoderConfig, VideoEncoder
from echojepa.models.formats.export_weights import export_huggingface, export_vjepa2
from echojepa.models.formats.import_weights import ImportConfig, import_weights
from echojepa.models.weights import load_encoder, read_companions, read_config, save_encoder

GOLDEN = DATA / "vjepa2_tiny.pt"
HEADS = {"num_heads": 2, "predictor_heads": 2}
Tree = dict[str, Any]


@pytest.fixture
def published() -> Tree:
    """A checkpoint as V-JEPA 2's own code writes it."""
    content: Tree = torch.load(GOLDEN, weights_only=True)
    return content


def options(**changes: Any) -> ImportConfig:
    return ImportConfig(**{**HEADS, "size": 224, **changes})


def bare(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names without the wrappers' prefix."""
    return {name.removeprefix("module.backbone."): tensor for name, tensor in state.items()}


def equal(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[n], wanted[n]) for n in wanted)


def test_every_tensor_of_a_published_checkpoint_is_taken_over(
    published: Tree, tmp_path: Path
) -> None:
    report = import_weights(GOLDEN, tmp_path / "out", options())
    assert not report.not_taken and not report.stay_new and not report.inflated
    parts = [published[key] for key in ("encoder", "predictor", "target_encoder")]
    assert report.num_loaded == sum(map(len, parts))
    companions = read_companions(tmp_path / "out")
    assert companions is not None and companions.online is not None
    assert equal(load_encoder(tmp_path / "out").state_dict(), bare(published["target_encoder"]))
    assert equal(companions.online, bare(published["encoder"]))
    assert equal(companions.predictor, bare(published["predictor"]))


def test_the_online_branch_on_request(published: Tree, tmp_path: Path) -> None:
    import_weights(GOLDEN, tmp_path / "out", options(branch="online"))
    assert equal(load_encoder(tmp_path / "out").state_dict(), bare(published["encoder"]))


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone.", "encoder."])
@pytest.mark.parametrize("kind", ["flat", "nested", "ema", "safetensors"])
def test_prefixes_and_nesting_do_not_matter(
    published: Tree, tmp_path: Path, prefix: str, kind: str
) -> None:
    weights = {prefix + n: t for n, t in bare(published["target_encoder"]).items()}
    file = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pt")
    if kind == "safetensors":
        save_file(weights, file)
    else:
        key = {"nested": "target_encoder", "ema": "ema_encoder"}.get(kind)
        torch.save({key: weights, "epoch": 3} if key else weights, file)
    import_weights(file, tmp_path / "out", options())
    assert equal(load_encoder(tmp_path / "out").state_dict(), bare(published["target_encoder"]))
    assert read_companions(tmp_path / "out") is None


def test_out_in_the_published_layout_and_back_is_exact(published: Tree, tmp_path: Path) -> None:
    import_weights(GOLDEN, tmp_path / "in", options())
    file = export_vjepa2(tmp_path / "in", tmp_path / "out" / "vjepa2.pt")
    written = torch.load(file, weights_only=True)
    for key in ("encoder", "predictor", "target_encoder"):
        assert equal(written[key], published[key])


def test_what_does_not_fit_is_listed_by_name(published: Tree, tmp_path: Path) -> None:
    target = published["target_encoder"]
    del target["module.backbone.norm.bias"]
    target["module.backbone.head.weight"] = torch.zeros(3)
    target["module.backbone.blocks.0.norm1.weight"] = torch.zeros(5)
    torch.save(published, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError) as caught:
        import_weights(tmp_path / "odd.pt", tmp_path / "out", options())
    said = str(caught.value)
    assert "missing: norm.bias" in said
    assert "unexpected: head.weight" in said
    assert "of another shape: blocks.0.norm1.weight: (5,), not (" in said
    assert not (tmp_path / "out").exists()


def test_what_the_user_names_may_differ_and_is_reported(published: Tree, tmp_path: Path) -> None:
    target = published["target_encoder"]
    del target["module.backbone.norm.bias"]
    target["module.backbone.head.weight"] = torch.zeros(3)
    torch.save(published, tmp_path / "odd.pt")
    given = options(may_differ=("head.*", "norm.bias"))
    report = import_weights(tmp_path / "odd.pt", tmp_path / "out", given)
    assert report.not_taken == ["head.weight"]
    assert report.stay_new == ["norm.bias"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Not taken over: head.weight" in card
    assert "initial values: norm.bias" in card


def test_an_image_vit_is_inflated(tmp_path: Path) -> None:
    """A still video gives the patch embedding the image ViT gives its image."""
    vit = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, embed_dim=48, depth=2, num_heads=4, num_classes=3
    )
    torch.save(vit.state_dict(), tmp_path / "vit.pt")
    with pytest.raises(CheckpointError, match="unexpected: cls_token, head.bias"):
        import_weights(tmp_path / "vit.pt", tmp_path / "out", options(num_heads=4))
    given = options(num_heads=4, may_differ=("cls_token", "pos_embed", "head.*"))
    report = import_weights(tmp_path / "vit.pt", tmp_path / "out", given)
    assert report.inflated
    encoder = load_encoder(tmp_path / "out")
    image = torch.randn(1, 3, 32, 32)
    wanted = vit.patch_embed(image)
    weight, bias = encoder.patch_embed.proj.weight, encoder.patch_embed.proj.bias
    still = image[:, :, None].expand(-1, -1, 2, -1, -1)
    found = F.conv3d(still, weight, bias, stride=(2, 16, 16)).flatten(2).transpose(1, 2)
    assert torch.allclose(found, wanted, atol=1e-5)


def test_unknown_heads_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="heads of width .* is not known.*num_heads=N"):
        import_weights(GOLDEN, tmp_path / "out", ImportConfig(size=224))


def test_the_size_of_clips_is_asked_for(tmp_path: Path) -> None:
    """A wrong guess gives other features in transformers, without a word."""
    with pytest.raises(CheckpointError, match="does not say the size of its clips.*size=PIXELS"):
        import_weights(GOLDEN, tmp_path / "out", ImportConfig(**HEADS))
    assert not (tmp_path / "out").exists()
    import_weights(GOLDEN, tmp_path / "out", options(size=96))
    _, clip = read_config(tmp_path / "out")
    assert clip == {"num_frames": 16, "fps": 8.0, "size": 96}


@pytest.mark.parametrize("damage", ["code", "pickle", "truncated", "empty", "text", "list", "none"])
def test_bad_files_are_errors_and_nothing_runs(tmp_path: Path, damage: str) -> None:
    file, sprung = tmp_path / "weights.pt", tmp_path / "sprung"
    content = GOLDEN.read_bytes()
    if damage == "code":
        torch.save({"encoder": Trap(sprung)}, file)
    elif damage == "pickle":
        file.write_bytes(pickle.dumps(Trap(sprung)))
    elif damage == "list":
        torch.save([torch.zeros(3)], file)
    elif damage != "none":
        cut = {"truncated": content[: len(content) // 2], "empty": b"", "text": b"hello"}[damage]
        file.write_bytes(cut)
    with pytest.raises(CheckpointError):
        import_weights(file, tmp_path / "out", options())
    assert not sprung.exists()
    assert not (tmp_path / "out").exists()


def test_weights_of_something_else(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(3, 3)}, tmp_path / "mlp.pt")
    with pytest.raises(CheckpointError, match="not those of a video ViT"):
        import_weights(tmp_path / "mlp.pt", tmp_path / "out", options())
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="not a whole Hugging Face V-JEPA 2 folder"):
        import_weights(tmp_path, tmp_path / "out", options())


def test_formats_with_a_predictor_need_one(tmp_path: Path) -> None:
    config = EncoderConfig(width=48, depth=1, num_heads=4)
    clip = {"num_frames": 4, "fps": 8.0, "size": 32}
    save_encoder(tmp_path / "lone", config, VideoEncoder(config).state_dict(), clip, "card")
    for export in (export_huggingface, export_vjepa2):
        with pytest.raises(CheckpointError, match="holds no predictor"):
            export(tmp_path / "lone", tmp_path / "out")
