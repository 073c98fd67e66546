"""`echojepa evaluate`, `embed`, `predict`: what frozen encoders are worth, and what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from echojepa.cli.common import ConfigFile, Overrides, out

app = typer.Typer()
Manifest = Annotated[Path, typer.Argument(help="manifest.parquet")]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.")]


@app.command()
def evaluate(file: ConfigFile, overrides: Overrides = None) -> None:
    """Judge frozen encoders with probes; writes tables, fitted probes and a report."""
    from echojepa.config import load
    from echojepa.launch.evaluate import EvaluateJob, launch

    job = load(file, overrides or [], EvaluateJob)
    out.print(results_table(launch(job)))
    out.print(Path(job.out) / "report.html")


@app.command()
def embed(
    encoder: Annotated[
        str,
        typer.Argument(help="Encoder folder, or KIND:WEIGHTS such as panecho:panecho.pt."),
    ],
    manifest: Manifest,
    folder: Out,
    overrides: Overrides = None,
) -> None:
    """Embeddings of clips and studies, as Parquet; an interrupted call is finished by the same."""
    from echojepa.config import parse
    from echojepa.launch.embed import EmbedJob, launch

    kind, separator, weights = encoder.partition(":")
    named = f"kind: {kind}, weights: {weights}" if separator else f"kind: ours, path: {encoder}"
    settings = [f"encoder={{{named}}}", f"manifest={manifest}", f"out={folder}"]
    num_clips, num_bad = launch(parse([*settings, *(overrides or [])], EmbedJob))
    out.print(f"{num_clips} clips, {num_bad} of them unreadable")
    out.print(folder / "clips.parquet")
    out.print(folder / "studies.parquet")


@app.command()
def predict(
    probe: Annotated[
        Path, typer.Argument(help="Fitted probe: OUT/probes/TASK/NAME of an evaluation.")
    ],
    manifest: Manifest,
    folder: Out,
    overrides: Overrides = None,
) -> None:
    """Predictions of a fitted probe on new videos, clip by clip and study by study."""
    from echojepa.config import parse
    from echojepa.launch.predict import PredictJob, launch

    settings = [f"probe={probe}", f"manifest={manifest}", f"out={folder}"]
    table = launch(parse([*settings, *(overrides or [])], PredictJob))
    out.print(f"{len(table)} predictions")
    out.print(folder / "predictions.parquet")


def results_table(results: list[Any]) -> Table:
    """The first test scores of probes, with their 95% intervals over patients."""
    from echojepa.probes.metrics import SHOWN

    table = Table("task", "features", "test metrics [95% interval over patients]")
    for result in results:
        metrics = "  ".join(
            f"{name} {result.test[name]:.3f} [{low:.3f}, {high:.3f}]"
            for name, (low, high) in result.intervals.items()
            if name in SHOWN[result.task.kind][:3]
        )
        table.add_row(result.task.name, result.features, metrics)
    return table
