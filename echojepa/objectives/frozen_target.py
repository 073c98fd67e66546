"""Latent prediction with a frozen target: a student learns the latents of a finished encoder.

SALT ("Rethinking JEPA", Li et al. 2025): stage 1 trains a teacher in some cheap way (there with
pixel reconstruction), stage 2 trains encoder and predictor as JEPA does, but on the latents of that
teacher, which never changes. There is no average, and the teacher may be of another size.

The teacher is an encoder folder. Its digest is part of the settings that bind a run: every start
reads the folder again and goes on only if it is the same encoder. So checkpoints need not hold a
copy, which for a large teacher would be most of them, and a run, a fork or a replay cannot take
over a teacher that its config does not name.

Shapes: B clips, N all tokens, K kept tokens, D width, D' the target's, L levels, G generators.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import torch
from pydantic import Field
from torch import nn

from echojepa.config import changeable
from echojepa.cost import Pass, encoder_pass
from echojepa.data.block import DataConfig
from echojepa.errors import CheckpointError, ConfigError
from echojepa.models.attention import Grid
from echojepa.models.encoder import EncoderConfig, VideoEncoder, normalise
from echojepa.models.weights import encoder_digest, load_encoder, read_config
from echojepa.objectives.latent import LatentConfig, LatentModule, LatentObjective, last_level
from echojepa.objectives.objective import Facts, ModelConfig, Output, features_alone
from echojepa.randomness import Seeds


class FrozenTargetConfig(LatentConfig):
    """Latent prediction (SALT): of the features that a finished encoder gives for hidden tokens."""

    kind: Literal["frozen_target"] = "frozen_target"
    target: str = changeable()
    """Encoder folder whose features are learnt: what a run exports, or `echojepa import-weights`
    writes. Its patches and tubelets are those of the model; width, depth and heads are free."""
    target_sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    """Digest of that encoder. A launch notes it, and a run goes on with no other; null takes the
    encoder that is found at the first start."""

    def sources(self) -> tuple[str, ...]:
        """See `ObjectiveConfig`."""
        return (self.target,)

    def bound(self, model: ModelConfig) -> Self:
        """See `ObjectiveConfig`.

        Raises:
            CheckpointError: the target is not an encoder folder, or not the one that is stated.
            ConfigError: its tokens are not those of the model.
        """
        self.read_target(model)
        digest = encoder_digest(Path(self.target))
        if self.target_sha256 not in (None, digest):
            raise _another(self.target_sha256, digest, self.target)
        found = {"target": str(Path(self.target).resolve()), "target_sha256": digest}
        return self.model_copy(update=found)

    def read_target(self, model: ModelConfig) -> EncoderConfig:
        """The architecture of the target.

        Raises:
            CheckpointError: the target is not an encoder folder.
            ConfigError: its tokens are not those of the model, or it lacks the model's levels.
        """
        target, encoder = read_config(Path(self.target))[0], model.encoder
        sizes = [(c.tubelet_size, c.patch_size) for c in (target, encoder)]
        if sizes[0] != sizes[1]:
            texts = [f"tubelets of {t} x {p} x {p}" for t, p in sizes]
            raise ConfigError(
                f"the target has {texts[0]}, model.encoder {texts[1]}: other tokens of a clip",
                "Give both the same tubelet_size and patch_size.",
                "objective.target",
            )
        if encoder.num_levels not in (1, target.num_levels):
            raise ConfigError(
                f"the target has {target.num_levels} levels, model.encoder {encoder.num_levels}",
                "Set model.encoder.num_levels to that of the target, or to 1 for its last level.",
                "objective.target",
            )
        return target

    def build(
        self, model: ModelConfig, grid: Grid, seeds: Seeds, data: DataConfig | None = None
    ) -> FrozenTargetObjective:
        """See `ObjectiveConfig`; the target's folder is read where it is needed, not here."""
        return FrozenTargetObjective(self, model, grid, seeds)


class FrozenTargetObjective(LatentObjective):
    """Latent prediction under masks, of an encoder that never changes."""

    def __init__(
        self, config: FrozenTargetConfig, model: ModelConfig, grid: Grid, seeds: Seeds
    ) -> None:
        super().__init__(config, model, grid, seeds)
        self._config = config
        self.facts = Facts(
            losses=tuple(self._losses),
            num_terms=self._num_masks,
            watched={"online": ""},
            can_collapse=False,
            exported="encoder.",
            online="encoder.",
            frozen=("target.",),
            # The predictor stays in the run: it answers in the features of this target.
            card={
                "Encoder": "the encoder of a run that learnt the features of a frozen target",
                "Objective": self._error_text,
                "Target": f"frozen encoder with SHA-256 `{config.target_sha256}`",
            },
        )

    def module(self, dtype: torch.dtype) -> FrozenTarget:
        """See `Objective`."""
        return FrozenTarget(self._model, self._config, dtype)

    def complete(self, module: nn.Module) -> None:
        """See `Objective`.

        Raises:
            CheckpointError: as there.
            ConfigError: the digest of the target is not stated.
        """
        assert isinstance(module, FrozenTarget)
        stated, folder = self._config.target_sha256, self._config.target
        if stated is None:
            raise ConfigError(
                "nothing says which target this run began with",
                "Start the run by `echojepa pretrain`, or from `PretrainConfig.bound()`.",
                "objective.target_sha256",
            )
        found = encoder_digest(Path(folder))
        if found != stated:
            raise _another(stated, found, folder)
        module.target = load_encoder(folder)

    def passes(self) -> tuple[Pass, ...]:
        """The target over the whole clip; encoder and predictor per generator."""
        target = self._config.read_target(self._model)
        whole = encoder_pass(target, self.grid.num_tokens, trained=False)
        width = self._model.encoder.num_levels * target.width
        return (whole, *self._prediction_passes(width))


class FrozenTarget(LatentModule):
    """Online encoder and predictor, and the target: without weights until it is completed."""

    def __init__(
        self,
        model: ModelConfig,
        objective: FrozenTargetConfig,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        config = objective.read_target(model)
        super().__init__(model, objective, dtype, model.encoder.num_levels * config.width)
        with torch.device("meta"):  # a target of random weights would teach nothing, unnoticed
            self.target = VideoEncoder(config).requires_grad_(False)

    def forward(
        self,
        pixels: torch.Tensor,
        contexts: Sequence[torch.Tensor] = (),
        hiddens: Sequence[torch.Tensor] = (),
    ) -> Output:
        """Losses of a batch; see `Objective.module`.

        Args:
            pixels: uint8 clips, [B, T, H, W, 3].
            contexts: visible token indices per generator, G times [B, K_g]; none gives features
                of the encoder for the whole clip only.
            hiddens: hidden token indices per generator, G times [B, M_g].

        Returns:
            Losses [G, B], or with a context weight [2 G, B], as `latent.Prediction` has them.
            Features of the encoder for the last generator's context.
        """
        clip = normalise(pixels, self._dtype)
        if not contexts:
            return features_alone("online", self.encoder, clip)
        levels, width = self.encoder.config.num_levels, self.target.config.width
        with torch.no_grad():
            features = self.target(clip, levels=levels > 1).unflatten(-1, (-1, width))
        losses, seen = self.predict(clip, features, contexts, hiddens)
        online = last_level(seen[-1], self.encoder.config.width).detach()
        return Output(torch.stack(losses), {"online": online})


def _another(stated: str | None, found: str, folder: str) -> CheckpointError:
    return CheckpointError(
        f"the target is another encoder: its SHA-256 is {found}, not {stated}",
        "Bring the old one back, or name the new one in a run of its own.",
        folder,
    )
