"""The JEPA objective: predict the target's features of hidden tokens from the visible ones.

The target is a slow average of the encoder that learns (EMA; V-JEPA, Bardes et al. 2024), or that
encoder itself, of the whole clip (`target: online`). Without an average nothing but a regulariser
keeps all features from becoming one constant, whose prediction is free; LeJEPA (Balestriero and
LeCun 2025) and VICReg (Bardes et al. 2022) have no stop-gradient either, so the error's gradient
reaches both sides. What is predicted, and how it is compared, stands in `latent`.

Shapes: B clips, K kept tokens, M hidden tokens, N all tokens, D width, L levels, G generators.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from echojepa.cost import Pass, encoder_pass
from echojepa.data.block import DataConfig
from echojepa.data.stream import StreamShape
from echojepa.models.attention import Grid
from echojepa.models.encoder import normalise
from echojepa.objectives.latent import LatentConfig, LatentModule, LatentObjective, last_level
from echojepa.objectives.objective import Drawn, Facts, ModelConfig, Output, features_alone
from echojepa.objectives.regulariser import SigregConfig, VicregConfig
from echojepa.randomness import Seeds


class JepaConfig(LatentConfig):
    """Latent prediction: of the features that the encoder itself, or its average, gives."""

    kind: Literal["jepa"] = "jepa"
    target: Literal["ema", "online"] = "ema"
    """Whose features are predicted: a moving average of the encoder's, or its own, through which
    gradients flow as well. The latter needs a regulariser."""
    exported: Literal["target", "online"] = "target"
    """Which encoder leaves the run, and is probed on the way: the target, as published, or the one
    that learns. An average of momentum m lies 1 / (1 - m) steps behind, more than short runs
    have."""
    regulariser: Annotated[SigregConfig | VicregConfig, Field(discriminator="kind")] | None = None
    """Keeps the embeddings of different clips apart; null leaves that to the average."""

    @property
    def exports_target(self) -> bool:
        """Whether what leaves the run is an average."""
        return self.target == "ema" and self.exported == "target"

    @property
    def clips_together(self) -> int:
        """See `ObjectiveConfig`: those of a regulariser's group."""
        return 1 if self.regulariser is None else self.regulariser.group

    def check(self, model: ModelConfig) -> None:
        """See `ObjectiveConfig`."""
        super().check(model)
        if self.target == "online" and self.regulariser is None:
            raise ValueError(
                "objective.target online needs an objective.regulariser: constant features would "
                "be predicted without error, and nothing else forbids them"
            )

    def check_shape(self, shape: StreamShape) -> None:
        """See `ObjectiveConfig`; groups of a regulariser must not be cut."""
        super().check_shape(shape)
        if self.regulariser is not None:
            self.regulariser.check_shape(shape)

    def build(
        self, model: ModelConfig, grid: Grid, seeds: Seeds, data: DataConfig | None = None
    ) -> JepaObjective:
        """See `ObjectiveConfig`."""
        return JepaObjective(self, model, grid, seeds)


class JepaObjective(LatentObjective):
    """Latent prediction under masks, with an EMA target or the online encoder as its own."""

    def __init__(self, config: JepaConfig, model: ModelConfig, grid: Grid, seeds: Seeds) -> None:
        super().__init__(config, model, grid, seeds)
        self._config = config
        self._seeds = seeds
        if config.regulariser is not None:
            self._losses += [f"regulariser_{i}" for i in range(self._num_masks)]
        averaged = config.target == "ema"
        watched = {"online": ""}
        if averaged and config.exports_target:
            watched = {"target": "", "online": "online_"}
        elif averaged:
            watched = {"online": "", "target": "target_"}
        self.facts = Facts(
            losses=tuple(self._losses),
            num_terms=self._num_masks,
            watched=watched,
            can_collapse=True,
            exported="target." if config.exports_target else "encoder.",
            online="encoder.",
            averages={"target.": "encoder."} if averaged else {},
            predictor="predictor.",
            card=self._card(),
        )

    def module(self, dtype: torch.dtype) -> Jepa:
        """See `Objective`."""
        return Jepa(self._model, self._config, dtype)

    def draw(self, samples: NDArray[np.int64], clip_ids: Sequence[str] = ()) -> Drawn:
        """As `LatentObjective`; with a regulariser also what that needs, see there."""
        drawn = super().draw(samples)
        if self._config.regulariser is None:
            return drawn
        width = self._model.encoder.width
        return (*drawn, self._config.regulariser.draw(samples, width, self._seeds))

    def passes(self) -> tuple[Pass, ...]:
        """The target over the whole clip; encoder and predictor per generator."""
        trained = self._config.target == "online"
        whole = encoder_pass(self._model.encoder, self.grid.num_tokens, trained=trained)
        return (whole, *self._prediction_passes())

    def _card(self) -> dict[str, str]:
        whose = "the EMA target" if self._config.exports_target else "the online encoder"
        card = {
            "Encoder": f"{whose} of a JEPA pretraining run",
            "Objective": self._error_text,
        }
        if self._config.regulariser is not None:
            card["Regulariser"] = self._config.regulariser.describe()
        return card


class Jepa(LatentModule):
    """Online encoder, predictor and target as one module, so that one engine partitions them."""

    def __init__(
        self, model: ModelConfig, objective: JepaConfig, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__(model, objective, dtype)
        self.objective = objective
        averaged = objective.target == "ema"
        self.target = copy.deepcopy(self.encoder).requires_grad_(False) if averaged else None

    def forward(
        self,
        pixels: torch.Tensor,
        contexts: Sequence[torch.Tensor] = (),
        hiddens: Sequence[torch.Tensor] = (),
        directions: Sequence[torch.Tensor] = (),
    ) -> Output:
        """Losses of a batch; see `Objective.module`.

        Args:
            pixels: uint8 clips, [B, T, H, W, 3].
            contexts: visible token indices per generator, G times [B, K_g]; none gives features
                of the encoder that leaves the run only.
            hiddens: hidden token indices per generator, G times [B, M_g].
            directions: what the regulariser has drawn.

        Returns:
            Losses [G, B]: the errors over hidden tokens. With a context weight G more: the
            weighted errors over visible tokens; with a regulariser G more: what it says of the
            views of that generator. Features of the target for the whole clip, before the norm,
            and of the encoder for the last generator's context, if that is not the target.
        """
        clip = normalise(pixels, self._dtype)
        width = self.encoder.config.width
        if not contexts:
            if self.target is not None and self.objective.exports_target:
                return features_alone("target", self.target, clip)
            return features_alone("online", self.encoder, clip)
        if self.target is None:
            whole = self.encoder(clip, levels=True)  # [B, N, L D]
        else:
            with torch.no_grad():
                whole = self.target(clip, levels=True)
        losses, seen = self.predict(clip, whole.unflatten(-1, (-1, width)), contexts, hiddens)
        if self.objective.regulariser is not None:
            losses = [*losses, *self._regularised(seen, whole, directions)]
        features = last_level(whole, width).detach()
        found = {"online" if self.target is None else "target": features}
        if self.target is not None:
            found["online"] = last_level(seen[-1], width).detach()
        return Output(torch.stack(losses), found)

    def _regularised(
        self, seen: list[torch.Tensor], whole: torch.Tensor, drawn: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """The regulariser's losses, G times [B]: the mean over the views of that generator.

        The encoder that learns has seen the generator's context, and the whole clip too if no
        average looks at that in its stead.
        """
        width, regulariser = self.encoder.config.width, self.objective.regulariser
        assert regulariser is not None
        losses = []
        views = [last_level(view, width) for view in (*seen, *([whole] * (self.target is None)))]
        found = [regulariser.losses(view, drawn) for view in views]
        for index in range(len(seen)):
            own = [found[index], *found[len(seen) :]]
            losses.append(torch.stack(own).mean(dim=0))
        return losses
