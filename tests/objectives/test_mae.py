"""EchoMAE: what is redrawn, what it costs, what it looks like, and a run of it."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.exported import card_of_encoder
from support.masks import BLOCKS
from support.ranks import pretrain_on_ranks, pretrain_plain, variant
from support.teachers import GRID, MODEL, pixels_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from transformers import VideoMAEConfig, VideoMAEForPreTraining
from transformers.models.videomae.modeling_videomae import VideoMAEDecoderOutput

from echojepa.data.stream import StreamShape
from echojepa.errors import ConfigError
from echojepa.models.encoder import normalise, to_tubelets
from echojepa.models.weights import read_companions
from echojepa.objectives.mae import Mae, MaeConfig, unit_pixels
from echojepa.objectives.objective import Objective
from echojepa.objectives.token_masks import RandomMaskConfig
from echojepa.randomness import Seeds
from echojepa.runs.audit import audit_run
from echojepa.runs.folder import RunFolder

Tree = dict[str, Any]


def objective_of(**settings: Any) -> Objective:
    return MaeConfig(**settings).build(MODEL, GRID, Seeds(0))


def module_of(objective: Objective) -> Mae:
    module = objective.module(torch.float32)
    assert isinstance(module, Mae)
    return module


# -------------------------------------------------------------------------------- what is redrawn


class Answering(nn.Module):
    """Stands in the place of a decoder, whose answers are known."""

    def __init__(self, answers: torch.Tensor) -> None:
        super().__init__()
        # VideoMAE's tubelets lie as (frame, row, column, channel) in memory, ours channel first.
        tubelets = answers.unflatten(-1, (3, 2, 8, 8)).permute(0, 1, 3, 4, 5, 2)
        self._logits = tubelets.flatten(2)

    def forward(self, *_: object) -> VideoMAEDecoderOutput:
        return VideoMAEDecoderOutput(logits=self._logits)


def videomae_error(
    pixels: torch.Tensor, hidden: torch.Tensor, answers: torch.Tensor, *, normalised: bool
) -> torch.Tensor:
    """What the VideoMAE of Hugging Face's library finds wrong with the same answers."""
    config = VideoMAEConfig(
        image_size=48, patch_size=8, num_frames=4, tubelet_size=2, hidden_size=12,
        num_hidden_layers=1, num_attention_heads=2, intermediate_size=12, decoder_hidden_size=12,
        decoder_num_hidden_layers=1, decoder_num_attention_heads=2, decoder_intermediate_size=12,
        norm_pix_loss=normalised,
    )  # fmt: skip
    model = VideoMAEForPreTraining(config)
    model.decoder = Answering(answers)
    masked = torch.zeros(len(pixels), GRID.num_tokens, dtype=torch.bool).scatter(1, hidden, True)
    video = normalise(pixels, torch.float32).transpose(1, 2)  # [B, T, 3, H, W]
    error: torch.Tensor = model(video, bool_masked_pos=masked).loss
    return error


@torch.no_grad()
@pytest.mark.parametrize("target", ["normalised_pixels", "pixels"])
def test_the_error_is_that_of_videomae(target: str) -> None:
    objective, pixels = objective_of(target=target), pixels_of(3)
    module = module_of(objective)
    contexts, hiddens = objective.draw(np.arange(3))
    losses = module(pixels, contexts, hiddens).losses
    context = module.encoder(normalise(pixels, torch.float32), contexts[0])
    answers = module.decoder(context, contexts[0], hiddens[0], GRID)
    normalised = target == "normalised_pixels"
    expected = videomae_error(pixels, hiddens[0], answers, normalised=normalised)
    torch.testing.assert_close(losses.mean(), expected, rtol=1e-5, atol=1e-6)
    assert losses.shape == (1, 3)


@torch.no_grad()
def test_a_black_tubelet_is_no_reason_to_divide_by_zero() -> None:
    objective = objective_of()
    output = module_of(objective)(torch.zeros_like(pixels_of(2)), *objective.draw(np.arange(2)))
    assert output.losses.isfinite().all()


@torch.no_grad()
def test_with_blocks_every_mask_has_a_loss() -> None:
    objective = objective_of(masks=BLOCKS)
    module, pixels = module_of(objective), pixels_of(3)
    contexts, hiddens = objective.draw(np.arange(3))
    output = module(pixels, contexts, hiddens)
    assert objective.facts.losses == ("mask_0", "mask_1") and objective.facts.num_terms == 2
    for index in range(2):
        alone = module(pixels, contexts[index : index + 1], hiddens[index : index + 1])
        torch.testing.assert_close(output.losses[index], alone.losses[0])
    clip = normalise(pixels, torch.float32)
    torch.testing.assert_close(output.features["online"], module.encoder(clip, contexts[1]))


@torch.no_grad()
def test_without_masks_there_are_features_for_all_tokens_and_no_answers() -> None:
    module, pixels = module_of(objective_of()), pixels_of()
    output = module(pixels)
    assert output.losses.shape == (0, 3) and output.answers is None
    expected = module.encoder(normalise(pixels, torch.float32))
    torch.testing.assert_close(output.features["online"], expected)


# ---------------------------------------------------------------------------------- its pictures


@torch.no_grad()
@pytest.mark.parametrize("target", ["normalised_pixels", "pixels"])
def test_right_answers_redraw_the_clip(target: str) -> None:
    objective, pixels = objective_of(target=target), pixels_of(2)
    samples = np.array([7, 3])
    hidden = torch.from_numpy(objective.hidden_tokens(samples)[0])
    truth = to_tubelets(unit_pixels(pixels), MODEL.encoder).unflatten(-1, (3, -1))
    if target == "normalised_pixels":
        truth = (truth - truth.mean(-1, keepdim=True)) / truth.std(-1, keepdim=True)
    right = torch.stack([clip[tokens] for clip, tokens in zip(truth, hidden, strict=True)])
    drawn = objective.redrawn(pixels, samples, right.flatten(-2))
    assert drawn.dtype == torch.uint8
    assert (drawn.int() - pixels.int()).abs().max() <= 1


def test_only_what_is_hidden_is_redrawn() -> None:
    objective, pixels = objective_of(target="pixels"), pixels_of(1)
    hidden = objective.hidden_tokens(np.array([0]))[0]
    width = module_of(objective).decoder.predictor_proj.out_features
    drawn = objective.redrawn(pixels, np.array([0]), torch.full((1, hidden.shape[1], width), 2.0))
    changed = (drawn != pixels).any(dim=-1)[0].numpy()  # [T, H, W]
    cells = np.zeros(GRID.num_tokens, bool)
    cells[hidden[0]] = True
    where = cells.reshape(GRID).repeat(2, axis=0).repeat(8, axis=1).repeat(8, axis=2)
    assert not changed[~where].any()
    assert (drawn[0].numpy()[where] == 255).all()  # brighter than white is white


# --------------------------------------------------------------------------------- what is refused


def test_models_that_it_cannot_train_are_refused() -> None:
    predictor = MODEL.predictor.model_copy(update={"context_head": True})
    with pytest.raises(ValueError, match="context_head must be false"):
        MaeConfig().check(MODEL.model_copy(update={"predictor": predictor}))
    encoder = MODEL.encoder.model_copy(update={"num_levels": 2})
    with pytest.raises(ValueError, match="num_levels must be 1"):
        MaeConfig().check(MODEL.model_copy(update={"encoder": encoder}))


def test_blocks_that_are_truncated_restrict_the_cut_of_a_batch() -> None:
    masks = BLOCKS.model_copy(update={"truncate_group": 3})
    with pytest.raises(ConfigError, match="truncate_group 3 does not fit"):
        MaeConfig(masks=masks).check_shape(StreamShape(4, 1, 2, 2, 2))
    MaeConfig().check_shape(StreamShape(4, 1, 2, 2, 2))


# ---------------------------------------------------------------------------------------- in a run


@pytest.fixture
def run(tree: Tree) -> Tree:
    masks = {"kind": "tubes", "hidden_fraction": 0.75}
    tree["objective"] = {"kind": "mae", "masks": masks}
    return tree


def test_two_ranks_then_one_equal_an_undisturbed_run(run: Tree) -> None:
    undisturbed = pretrain_plain(variant(run, "plain"))
    assert undisturbed[-1] < undisturbed[0]
    resumed = variant(run, "resumed")
    resumed["loop"]["stop_after_step"] = 4
    pretrain_on_ranks(resumed, 2)
    resumed["loop"]["stop_after_step"] = None
    np.testing.assert_allclose(pretrain_on_ranks(resumed, 1), undisturbed, atol=1e-4)
    folder = RunFolder(resumed["run_dir"])
    audit_run(folder).raise_if_unclean(resumed["run_dir"])
    check_encoder(folder)
    check_metrics(folder)
    check_pictures(folder)


def check_encoder(folder: RunFolder) -> None:
    card = card_of_encoder(folder, 8)
    assert "masked autoencoder" in card and "75% of all tubes" in card and "momentum" not in card
    assert read_companions(folder.encoder) is None


def check_metrics(folder: RunFolder) -> None:
    last = json.loads((folder.path / "metrics.jsonl").read_text().splitlines()[-1])
    assert "effective_rank" in last and "loss_mask_0" in last and "momentum" not in last


def check_pictures(folder: RunFolder) -> None:
    png = folder.reconstruction()
    assert png is not None
    with Image.open(io.BytesIO(png)) as image:
        # Rows: clip, mask, redrawn; each clip is two frames wide for every one of its tubelets.
        assert image.height == 3 * 50 and image.width % (4 * 50) == 0
    accumulator = EventAccumulator(str(folder.tensorboard), size_guidance={"images": 0})
    accumulator.Reload()
    steps = [event.step for event in accumulator.Images("reconstruction")]
    assert steps == [1, 4, 5, 8] or steps == [1, 4, 8]
    assert "masks" not in accumulator.Tags()["images"]


def test_random_masks_of_tokens_train_as_well(run: Tree) -> None:
    run["objective"]["masks"] = RandomMaskConfig(hidden_fraction=0.75).model_dump()
    run["objective"]["target"] = "pixels"
    losses = pretrain_plain(run)
    assert losses[-1] < losses[0]
