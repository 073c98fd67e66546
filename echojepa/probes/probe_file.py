"""A fitted probe on disk: all that it takes to predict from new videos.

    FOLDER/
      card.json             task, encoder and the digest of its weights, how videos become features
      linear.safetensors    of a linear probe: scaler and weights in float64
      model.safetensors     of a head of a grid, with probe.json (see `grid.fitted`)

It holds no path of a training video and no patient.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError

from echojepa.config import Strict, to_tree, validate
from echojepa.durable import write_text
from echojepa.encoders.kinds import AnyEncoder
from echojepa.encoders.source import Source
from echojepa.errors import CheckpointError, ConfigError, StorageError, first_line
from echojepa.models.formats.files import read_tensors
from echojepa.models.weights import save_tensors
from echojepa.probes.extraction import ExtractConfig
from echojepa.probes.fitting import AnyProbe, Judged, Probe, ProbeResult
from echojepa.probes.grid.fitted import GridFit
from echojepa.probes.linear import LinearProbe
from echojepa.probes.tasks import Task

CARD = "card.json"
_LINEAR = "linear.safetensors"
_LEVEL = 0.95


class ProbeCard(Strict):
    """What a probe is."""

    format: Literal["echojepa-probe"] = "echojepa-probe"
    """Of the file."""
    name: str
    """Of its results."""
    task: Task
    """What it predicts, and of which clips."""
    encoder: AnyEncoder
    """Whose features it reads."""
    weights_sha256: str
    """Of that encoder; see `Source.digest`."""
    extract: ExtractConfig
    """How videos become features."""
    probe: AnyProbe
    """How it was fitted."""
    classes: tuple[str, ...]
    """Those that it knows; none of a number."""
    half_width: float | None
    """Of the 95% interval around a number, by split conformal prediction (Lei et al., JASA
    113:1094, 2018): so far from the truth were validation's predictions at most, all but 5% of
    them. Null where validation is too small to say."""


class SavedProbe:
    """A probe that was read from its folder."""

    def __init__(self, card: ProbeCard, probe: Probe) -> None:
        self.card = card
        self.probe = probe

    @classmethod
    def load(cls, folder: Path) -> SavedProbe:
        """Read what `save_probe` wrote.

        Raises:
            CheckpointError: the folder is no probe, is damaged, or its encoder's weights are not
                those that it was fitted on.
        """
        try:
            card = validate(json.loads((folder / CARD).read_text()), ProbeCard, str(folder / CARD))
        except (OSError, ValueError, ConfigError) as error:
            raise CheckpointError(
                f"not a probe folder ({type(error).__name__})",
                "Name a folder below `probes` of an evaluation.",
                str(folder / CARD),
            ) from None
        if card.encoder.digest() != card.weights_sha256:
            raise CheckpointError(
                "the encoder's weights are missing, or not those that the probe was fitted on",
                "Put them back, or evaluate again.",
                str(card.encoder.origin()),
            )
        probe = _read_linear(folder, card) if card.probe.kind == "linear" else GridFit.load(folder)
        return cls(card, probe)


def save_probe(folder: Path, judged: Judged, source: Source, config: ExtractConfig) -> Path:
    """Write a fitted probe into a folder.

    Args:
        source: the encoder.
        config: how features were computed, and possibly more settings, which are left out.

    Raises:
        StorageError: the folder cannot be written.
    """
    card = ProbeCard(
        name=judged.name,
        task=judged.labels.task,
        encoder=source,
        weights_sha256=source.digest(),
        extract=ExtractConfig(**{n: getattr(config, n) for n in ExtractConfig.model_fields}),
        probe=judged.config,
        classes=tuple(str(c) for c in judged.probe.classes),
        half_width=_half_width(judged.result),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CARD).unlink(missing_ok=True)  # so that it never stands beside other weights
        _write_weights(folder, judged.probe)
        write_text(folder / CARD, json.dumps(to_tree(card), indent=1))
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"the probe cannot be written: {first_line(error)}", "Free the folder.", str(folder)
        ) from None
    return folder


def _write_weights(folder: Path, probe: Probe) -> None:
    if isinstance(probe, LinearProbe):
        arrays = {n: getattr(probe, n) for n in ("mean", "scale", "weight", "bias")}
        arrays["strength"] = np.array([probe.strength])
        tensors = {n: torch.from_numpy(np.array(a, np.float64)) for n, a in arrays.items()}
        save_tensors(tensors, folder / _LINEAR, {"format": "pt"})
    elif isinstance(probe, GridFit):
        probe.save(folder)


def _half_width(result: ProbeResult) -> float | None:
    if result.task.kind != "regression" or result.on_val is None:
        return None
    errors = np.sort(np.abs(result.on_val.output - result.on_val.truth))
    rank = math.ceil((len(errors) + 1) * _LEVEL)
    return float(errors[rank - 1]) if rank <= len(errors) else None


def _read_linear(folder: Path, card: ProbeCard) -> LinearProbe:
    arrays = {name: tensor.numpy() for name, tensor in read_tensors(folder / _LINEAR).items()}
    width, outputs = arrays.get("mean", np.empty(0)).size, max(len(card.classes), 1)
    shapes = {
        "mean": (width,),
        "scale": (width,),
        "weight": (outputs, width),
        "bias": (outputs,),
        "strength": (1,),
    }
    if {name: array.shape for name, array in arrays.items()} != shapes:
        raise CheckpointError(
            f"the probe's arrays are not those of {outputs} output(s)",
            "Evaluate again.",
            str(folder / _LINEAR),
        )
    strength = float(arrays.pop("strength")[0])
    return LinearProbe(**arrays, classes=np.array(card.classes, str), strength=strength)
