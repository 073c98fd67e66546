"""`echojepa audit`, `echojepa replay`: what a run has done, and one step of it once more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from echojepa.cli.common import Overrides, out

app = typer.Typer()
Run = Annotated[Path, typer.Argument(help="Run folder.")]
_NUM_CLIPS = 20


@app.command()
def audit(run: Run) -> None:
    """Prove from a run's recorded indices that no sample was lost or doubled."""
    from echojepa.runs.audit import audit_run
    from echojepa.runs.folder import RunFolder

    report = audit_run(RunFolder(run))
    table = Table("attempt", "from step", "to step", "workers")
    for part in report.attempts:
        table.add_row(*map(str, part))
    out.print(table)
    if report.data_sets:
        out.print(data_sets_table(report.data_sets))
    out.print(f"{report.num_steps} steps, {report.num_samples} samples trained on")
    out.print(
        f"{report.num_unread} unreadable (weight 0), {report.num_dropped_steps} dropped steps, "
        f"{report.num_redone_steps} steps redone after restarts"
    )
    report.raise_if_unclean(str(run))
    out.print("clean: every sample exactly once")


@app.command()
def replay(
    run: Run,
    step: Annotated[int, typer.Argument(help="Step of it, from 0.")],
    overrides: Overrides = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...; a GPU if there is one.")] = "auto",
) -> None:
    """Repeat one step of a run, alone: norms by block, losses by clip, a picture of the worst.

    Settings are the run's own; what may change at resume, such as data.manifest, may be given.
    """
    import torch

    from echojepa.config import amend, validate
    from echojepa.launch.pretrain import PretrainJob
    from echojepa.replay import replay as repeat
    from echojepa.runs.folder import RunFolder
    from echojepa.train.device import training_device

    folder = RunFolder(run)
    folder.identity()
    config = validate(folder.config_tree(), PretrainJob, str(folder.path / "config.yaml"))
    config = amend(config, [*(overrides or []), f"run_dir={folder.path}"])
    found = repeat(config, step, training_device() if device == "auto" else torch.device(device))
    modules = Table("block", "weight norm", "gradient norm", "not finite")
    for name, weight, gradient, bad in found.modules:
        modules.add_row(name, f"{weight:.4g}", f"{gradient:.4g}", str(bad or ""))
    out.print(modules)
    clips = Table("sample", "clip", "losses", "problem")
    for line in found.clips[:_NUM_CLIPS]:
        losses = "  ".join(f"{loss:.4f}" for loss in line.losses)
        clips.add_row(str(line.sample), line.clip_id, losses, line.problem)
    out.print(clips)
    if len(found.clips) > _NUM_CLIPS:
        out.print(f"the worst {_NUM_CLIPS} of {len(found.clips)} clips are shown")
    out.print(f"step {step} on the weights of: {found.weights}")
    out.print(f"gradient norm {found.gradient_norm:.4g}")
    out.print(found.picture)


def data_sets_table(data_sets: dict[str, Any]) -> Table:
    """What a run took from each data set of its mixture."""
    table = Table("data set", "clips", "samples", "epochs", "unreadable", "in dropped steps")
    for name, part in data_sets.items():
        epochs = part.num_samples / part.num_clips
        counts = (part.num_clips, part.num_samples, f"{epochs:.2f}")
        table.add_row(name, *map(str, (*counts, part.num_unread, part.num_dropped)))
    return table
