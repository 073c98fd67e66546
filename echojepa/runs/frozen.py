"""What an evaluation takes from runs: encoders, checkpoints, untrained twins, facts of a run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError

from echojepa.encoders.custom import CustomSource
from echojepa.encoders.ours import OurSource
from echojepa.encoders.source import Source
from echojepa.errors import CheckpointError, ConfigError, StorageError, first_line
from echojepa.models.weights import is_encoder_folder
from echojepa.pictures.evaluation import RunFacts
from echojepa.probes.fitting import BASELINE
from echojepa.runs.checkpoint import resolve, step_of
from echojepa.runs.export import export_encoder
from echojepa.runs.folder import RunFolder, read_lines


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
        ConfigError: an encoder has the name of a twin, of a checkpoint or of the baseline.
        StorageError: `folder` cannot be written.
    """
    steps = {} if ranked_run is None else _checkpoints(Path(ranked_run))
    twins = {
        name: f"{name} (random weights)"
        for name, source in encoders.items()
        if twin_seed is not None and has_twin(source)
    }
    taken = encoders.keys() & {*steps, *twins.values(), BASELINE}
    if taken:
        raise ConfigError(
            f"the name {min(taken)!r} is given to something else", "Choose another.", "encoders"
        )
    found: dict[str, Source] = {}
    for name, source in {**encoders, **steps}.items():
        found[name] = _exported(source, folder / name)
        if name in twins:
            found[twins[name]] = found[name].model_copy(update={"random_seed": twin_seed})
    return found


def has_twin(source: Source) -> bool:
    """Whether a source has weights that can be replaced by random ones."""
    return not source.untrained and not isinstance(source, CustomSource)


def _checkpoints(run: Path) -> dict[str, Source]:
    """Those that are left of a run, by name."""
    found = sorted(run.glob("checkpoints/step_*"))
    if not found:
        raise CheckpointError("the run has no checkpoint to rank", "Name a run folder.", str(run))
    return {f"step {step_of(path)}": OurSource(path=str(path)) for path in found}


def _exported(source: Source, folder: Path) -> Source:
    """With a whole path, so that a probe finds its encoder from anywhere."""
    origin = source.origin() if source.location else None
    if origin is None:
        return source
    source = source.at(origin.absolute())
    if not isinstance(source, OurSource) or is_encoder_folder(origin):
        return source
    checkpoint = resolve(origin)
    try:
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier moment of the run
        export_encoder(checkpoint, folder)
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"the encoder cannot be exported: {first_line(error)}", "Free the folder.", str(folder)
        ) from None
    return source.at(folder.absolute())


def run_facts(run_dir: str | None) -> RunFacts | None:
    """What a page says of a run, if one is named; raises `StorageError` if it is none."""
    if run_dir is None:
        return None
    folder = RunFolder(run_dir)
    identity = folder.identity()
    return RunFacts(
        folder.config_tree(),
        read_lines(folder.path / "metrics.jsonl"),
        identity,
        folder.reconstruction(),
    )
