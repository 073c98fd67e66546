"""Weights out to and in from `transformers`, whose V-JEPA 2 is an independent implementation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import VJEPA2Config, VJEPA2Model

from echojepa.models.encoder import EncoderConfig, VideoEncoder, gather_tokens
from echojepa.models.formats.export_weights import export_huggingface
from echojepa.models.formats.import_weights import ImportConfig, import_weights
from echojepa.models.predictor import Predictor, PredictorConfig
from echojepa.models.weights import (
    Companions,
    load_encoder,
    read_companions,
    read_config,
    save_encoder,
)

CLIP = {"num_frames": 4, "fps": 8.0, "size": 32}
SIZES = {
    "small": (
        EncoderConfig(width=48, depth=2, num_heads=4, patch_size=8),
        PredictorConfig(width=24, depth=1, num_heads=2),
    ),
    "giantlike": (
        EncoderConfig(width=44, depth=3, num_heads=2, mlp_ratio=48 / 11, patch_size=16),
        PredictorConfig(width=36, depth=2, num_heads=3),
    ),
}


@pytest.fixture(params=SIZES)
def pair(request: pytest.FixtureRequest) -> tuple[VideoEncoder, Predictor]:
    """Encoder and predictor with weights large enough to matter everywhere."""
    large, small = SIZES[request.param]
    encoder, predictor = VideoEncoder(large), Predictor(small, large)
    with torch.no_grad():
        for parameter in [*encoder.parameters(), *predictor.parameters()]:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return encoder.eval().requires_grad_(False), predictor.eval().requires_grad_(False)


def ours(folder: Path, pair: tuple[VideoEncoder, Predictor]) -> Path:
    """The pair as an encoder folder."""
    encoder, predictor = pair
    companions = Companions(predictor.config, predictor.state_dict())
    return save_encoder(folder, encoder.config, encoder.state_dict(), CLIP, "# Card", companions)


def compare(encoder: VideoEncoder, predictor: Predictor, theirs: VJEPA2Model) -> None:
    """Features of a clip, and predictions from ragged context, agree."""
    clip = torch.randn(2, 3, CLIP["num_frames"], CLIP["size"], CLIP["size"])
    grid = encoder.config.grid(*clip.shape[2:])
    order = torch.stack([torch.randperm(grid.num_tokens).sort()[1] for _ in range(2)])
    keep, hidden = (part.sort(dim=1)[0] for part in (order[:, :3], order[:, 3:]))
    with torch.no_grad():
        found = theirs(clip.transpose(1, 2), context_mask=[keep], target_mask=[hidden])
        features = encoder(clip)
        predicted = predictor(gather_tokens(features, keep), keep, hidden, grid)
    assert torch.allclose(features, found.last_hidden_state, atol=1e-4)
    assert features.std() > 0.1
    assert torch.allclose(predicted, found.predictor_output.last_hidden_state, atol=1e-4)
    assert predicted.std() > 0.1


def test_transformers_loads_what_we_export(
    pair: tuple[VideoEncoder, Predictor], tmp_path: Path
) -> None:
    folder = export_huggingface(ours(tmp_path / "ours", pair), tmp_path / "theirs")
    model, report = VJEPA2Model.from_pretrained(folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    compare(*pair, model.eval())
    assert (folder / "README.md").read_text() == "# Card"


@pytest.mark.parametrize("max_shard_size", ["5GB", "40KB"])
def test_we_import_what_transformers_saves(tmp_path: Path, max_shard_size: str) -> None:
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
    theirs = VJEPA2Model(config).eval()
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size=max_shard_size)
    report = import_weights(tmp_path / "theirs", tmp_path / "ours", ImportConfig())
    assert not report.not_taken and not report.stay_new
    encoder, companions = load_encoder(tmp_path / "ours"), read_companions(tmp_path / "ours")
    assert companions is not None
    predictor = Predictor(companions.config, encoder.config)
    predictor.load_state_dict(companions.predictor)
    compare(encoder, predictor, theirs)
    _, clip = read_config(tmp_path / "ours")
    assert (clip["num_frames"], clip["size"]) == (4, 32)


def test_there_and_back_is_exact(pair: tuple[VideoEncoder, Predictor], tmp_path: Path) -> None:
    export_huggingface(ours(tmp_path / "ours", pair), tmp_path / "theirs")
    import_weights(tmp_path / "theirs", tmp_path / "again", ImportConfig())
    encoder, companions = load_encoder(tmp_path / "again"), read_companions(tmp_path / "again")
    assert companions is not None
    for found, wanted in ((encoder.state_dict(), pair[0]), (companions.predictor, pair[1])):
        assert found.keys() == wanted.state_dict().keys()
        assert all(torch.equal(found[name], t) for name, t in wanted.state_dict().items())
    assert encoder.config.width == pair[0].config.width
    assert companions.config.num_heads == pair[1].config.num_heads
