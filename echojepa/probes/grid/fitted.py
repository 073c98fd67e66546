"""The head of a grid that was chosen: what it says, and where it is kept.

A folder holds `model.safetensors`, one head under the names of the published probes, and
`probe.json`, everything else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from echojepa.config import Strict, to_tree, validate
from echojepa.durable import write_text
from echojepa.errors import CheckpointError, ConfigError
from echojepa.models.formats.files import read_tensors
from echojepa.models.weights import fill, save_tensors
from echojepa.probes.grid.config import GridConfig
from echojepa.probes.grid.heads import Design, Heads, build_heads, outputs_of
from echojepa.probes.grid.samples import Samples, SampleShape
from echojepa.probes.grid.target import Target
from echojepa.probes.metrics import Floats, goodness

_WEIGHTS = "model.safetensors"
_RECORD = "probe.json"


class HeadRecord(Strict):
    """How one head of the grid fared."""

    lr: float
    """Learning rate after the warm-up."""
    weight_decay: float
    """Of all its parameters."""
    warmup_epochs: int
    """Of the learning rate."""
    val: tuple[float, ...]
    """Headline score on val after every epoch (see `metrics.HEADLINE`), until it diverged."""
    diverged: bool
    """Whether what it said on val was not finite after some epoch; it is never chosen."""


class Chosen(Strict):
    """Which head of the table, after which epoch."""

    head: int = Field(ge=0)
    """Its row, from 0."""
    epoch: int = Field(ge=0)
    """From 0."""


class FitRecord(Strict):
    """All that is known of a fit but the weights."""

    format: Literal["echojepa-probe-grid"] = "echojepa-probe-grid"
    """Of the file."""
    config: GridConfig
    """Settings of the grid."""
    shape: SampleShape
    """Of the samples it was shown."""
    target: Target
    """How its outputs are read."""
    table: tuple[HeadRecord, ...] = Field(min_length=1)
    """All heads, in the order of `GridConfig.heads`."""
    chosen: Chosen
    """The one that is kept, with its weights after this epoch."""

    @model_validator(mode="after")
    def _chosen_from_the_table(self) -> FitRecord:
        head, epoch = self.chosen.head, self.chosen.epoch
        if head >= len(self.table) or epoch >= len(self.table[head].val):
            raise ValueError(f"the table has no head {head} after epoch {epoch}")
        return self


def choose(kind: Literal["regression", "classification"], table: Sequence[HeadRecord]) -> Chosen:
    """The best head and epoch on val; of equally good ones the simpler.

    Simpler is, in this order: a larger weight decay, a smaller learning rate, an earlier epoch, a
    shorter warm-up.

    Raises:
        ConfigError: every head diverged.
    """
    ranked = [
        ((goodness(kind, score), row.weight_decay, -row.lr, -epoch, -row.warmup_epochs), head)
        for head, row in enumerate(table)
        if not row.diverged
        for epoch, score in enumerate(row.val)
    ]
    if not ranked:
        raise ConfigError(f"all {len(table)} heads diverged", "Set lower learning rates.", "lr")
    key, head = max(ranked, key=lambda entry: entry[0])
    return Chosen(head=head, epoch=-int(key[3]))


class GridFit:
    """A probe chosen from a grid."""

    def __init__(self, record: FitRecord, heads: Heads) -> None:
        """Move the head to a GPU, if there is one.

        Args:
            record: what is known of it.
            heads: a grid of the chosen head alone.
        """
        self.record = record
        self._heads = heads.to(device()).eval()

    @property
    def table(self) -> tuple[HeadRecord, ...]:
        """Every head of the grid, with its scores on val."""
        return self.record.table

    @property
    def classes(self) -> NDArray[np.str_]:
        """Those that it knows, [C]; none of a number."""
        return np.array(self.record.target.classes, str)

    @property
    def chosen(self) -> dict[str, float]:
        """The settings of the chosen head, and the epoch whose weights it has."""
        row = self.table[self.record.chosen.head]
        settings = row.model_dump(include={"lr", "weight_decay", "warmup_epochs"})
        return {**settings, "epoch": self.record.chosen.epoch}

    def predict(self, samples: Samples, index: NDArray[np.int64]) -> Floats:
        """What the chosen head says of some samples, in their order.

        Samples are read in batches of the config's size; no more than one is held.

        Returns:
            Numbers in raw units [n], or probabilities of `record.target.classes` [n, C].

        Raises:
            CheckpointError: the probe was fitted on samples of another shape.
            BadDataError: a sample has no clip that is present, or features that are not finite.
        """
        shape = SampleShape.of(samples)
        if shape != self.record.shape:
            raise CheckpointError(
                f"the probe was fitted on samples of {self.record.shape}, and these have {shape}",
                "Use the encoder, the views and the clips that it was fitted with.",
            )
        said = [np.empty((0, *self._decoded_shape()))]
        for outputs in outputs_of(self._heads, samples, index, self.record.config.batch):
            said.append(self.record.target.decode(outputs[0]))
        return np.concatenate(said)

    def _decoded_shape(self) -> tuple[int, ...]:
        target = self.record.target
        return () if target.kind == "regression" else (len(target.classes),)

    def save(self, folder: Path) -> None:
        """Write the probe into a folder, which is made; the record is written last."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: t[0].cpu() for name, t in self._heads.state_dict().items()}
        save_tensors(state, folder / _WEIGHTS, {"format": "pt"})
        write_text(folder / _RECORD, json.dumps(to_tree(self.record), indent=1))

    @classmethod
    def load(cls, folder: Path) -> GridFit:
        """Read what `save` wrote.

        Raises:
            CheckpointError: the folder is not a probe, is damaged, or does not fit its own record.
        """
        try:
            tree = json.loads((folder / _RECORD).read_text())
            record = validate(tree, FitRecord, str(folder / _RECORD))
        except (OSError, ValueError, ConfigError) as error:
            raise CheckpointError(
                f"not a probe folder ({error})",
                f"Name a folder with {_WEIGHTS} and {_RECORD}, or fit the probe again.",
                str(folder),
            ) from None
        heads = build_heads(record.config, Design(1, record.shape, record.target))
        state = {name: t[None] for name, t in read_tensors(folder / _WEIGHTS).items()}
        fill(heads, state, folder)
        return cls(record, heads)


def device() -> torch.device:
    """The GPU, if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
