"""Which encoders an evaluation compares: folders, runs, checkpoints, and their untrained twins."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from echojepa.encoders.custom import CustomSource
from echojepa.encoders.ours import OurSource
from echojepa.encoders.source import Source
from echojepa.models.weights import is_encoder_folder
from echojepa.runs.checkpoint import resolve, step_of
from echojepa.runs.export import export_encoder


def compared(
    encoders: Mapping[str, Source], twin_seed: int | None, ranked_run: str | None, folder: Path
) -> dict[str, Source]:
    """Sources that can be loaded, by name.

    A run folder stands for its newest valid checkpoint; runs and checkpoints are exported.

    Args:
        encoders: as the user names them.
        twin_seed: of the random weights of the twin beside each; None leaves the twins out.
        ranked_run: a run folder whose checkpoints join.
        folder: for exports.

    Raises:
        CheckpointError: a path is neither an encoder folder nor a run or checkpoint.
    """
    every = dict(encoders)
    if ranked_run is not None:
        found = sorted(Path(ranked_run, "checkpoints").glob("step_*"))
        every |= {f"step {step_of(path)}": OurSource(path=str(path)) for path in found}
    loadable = {name: _exported(source, folder / name) for name, source in every.items()}
    if twin_seed is None:
        return loadable
    with_twins: dict[str, Source] = {}
    for name, source in loadable.items():
        with_twins[name] = source
        if name in encoders and has_twin(source):
            twin = source.model_copy(update={"random_seed": twin_seed})
            with_twins[f"{name} (random weights)"] = twin
    return with_twins


def has_twin(source: Source) -> bool:
    """Whether a source has weights that can be replaced by random ones."""
    return not source.untrained and not isinstance(source, CustomSource)


def _exported(source: Source, folder: Path) -> Source:
    """With whole paths, so that a probe finds its encoder from anywhere."""
    for name in ("path", "weights"):
        if name in type(source).model_fields:
            whole = str(Path(getattr(source, name)).absolute())
            source = source.model_copy(update={name: whole})
    if not isinstance(source, OurSource) or is_encoder_folder(Path(source.path)):
        return source
    checkpoint = resolve(Path(source.path))
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier moment of the run
    return source.model_copy(update={"path": str(export_encoder(checkpoint, folder.absolute()))})
