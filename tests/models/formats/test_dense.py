"""V-JEPA 2.1 checkpoints in: the same numbers, and an exact list of what is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.vjepa21 import DEPTH, HEADS, SMALL_HEADS, Tensors, encode, predict, random_weights

from echojepa.errors import CheckpointError
from echojepa.models.attention import RotaryConfig
from echojepa.models.formats.export_weights import export_huggingface, export_vjepa2
from echojepa.models.formats.import_weights import ImportConfig, ImportReport, import_weights
from echojepa.models.predictor import Predictor
from echojepa.models.weights import load_encoder, read_companions

CLIP = (4, 64, 48)
IMAGES = ["patch_embed_img.proj.weight", "patch_embed_img.proj.bias", "img_mod_embed"]


def imported(parts: dict[str, Tensors], folder: Path, **changes: Any) -> ImportReport:
    """Write a checkpoint with the wrappers' prefixes and import it."""
    content = {
        {"encoder": "ema_encoder"}.get(name, name): {
            f"module.backbone.{n}": t for n, t in p.items()
        }
        for name, p in parts.items()
    }
    torch.save(content, folder / "dense.pt")
    options = ImportConfig(num_heads=HEADS, predictor_heads=SMALL_HEADS, **{"size": 256, **changes})
    return import_weights(folder / "dense.pt", folder / "out", options)


@torch.no_grad()
def test_features_and_predictions_are_those_of_the_published_layout(tmp_path: Path) -> None:
    parts = random_weights(levels=DEPTH)
    report = imported(parts, tmp_path)
    assert sorted(report.not_taken) == sorted([*IMAGES, "predictor: img_mod_embed"])
    assert not report.stay_new
    encoder, companions = load_encoder(tmp_path / "out"), read_companions(tmp_path / "out")
    assert companions is not None
    assert encoder.config.rotary == RotaryConfig(frequencies="paired", span=16)
    predictor = Predictor(companions.config, encoder.config)
    predictor.load_state_dict(companions.predictor)
    clip, grid = torch.randn(1, 3, *CLIP), encoder.config.grid(*CLIP)
    order = torch.randperm(grid.num_tokens)[None]
    keep, hidden = order[:, :9], order[:, 9:]
    context = encode(parts["encoder"], clip, keep, DEPTH)
    torch.testing.assert_close(encoder(clip, keep, levels=True), context, rtol=0, atol=1e-4)
    found = predictor(context, keep, hidden, grid)
    predicted, redrawn = predict(parts["predictor"], context, keep, hidden, grid)
    torch.testing.assert_close(found, torch.cat([redrawn, predicted], dim=1), rtol=0, atol=1e-4)
    assert context.std() > 0.1 and predicted.std() > 0.1


@torch.no_grad()
def test_a_distilled_checkpoint_lacks_the_teachers_heads(tmp_path: Path) -> None:
    parts = random_weights(levels=1, teacher=60)
    with pytest.raises(CheckpointError) as caught:
        imported(parts, tmp_path)
    assert "another shape: predictor: predictor_proj.bias: (60,), not (48,)" in str(caught.value)
    assert "predictor_proj_context.weight: (60, 24), not (48, 24)" in str(caught.value)
    report = imported(parts, tmp_path, may_differ=("predictor_proj*",))
    heads = [
        f"predictor: predictor_proj{which}.{kind}"
        for which in ("", "_context")
        for kind in ("bias", "weight")
    ]
    levels = [f"norms_block.{i}.{kind}" for i in range(DEPTH - 1) for kind in ("bias", "weight")]
    assert sorted(report.stay_new) == sorted(heads)
    assert sorted(report.not_taken) == sorted(
        [*IMAGES, *levels, *heads, "predictor: img_mod_embed"]
    )
    card = (tmp_path / "out" / "README.md").read_text()
    assert all(name in card for name in report.not_taken)
    encoder = load_encoder(tmp_path / "out")
    assert encoder.config.num_levels == 1
    clip, keep = torch.randn(1, 3, *CLIP), torch.tensor([[0, 5, 11, 23]])
    wanted = encode(parts["encoder"], clip, keep, 1)
    torch.testing.assert_close(encoder(clip, keep), wanted, rtol=0, atol=1e-4)


def test_v_jepa_2_has_no_names_for_it(tmp_path: Path) -> None:
    imported(random_weights(levels=DEPTH), tmp_path)
    for export in (export_huggingface, export_vjepa2):
        with pytest.raises(CheckpointError, match="no names for levels"):
            export(tmp_path / "out", tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()
