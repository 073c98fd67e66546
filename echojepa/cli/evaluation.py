"""`echojepa evaluate`, `embed`, `predict`: what frozen encoders are worth, and what they say."""

from __future__ import annotations

import json
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
        typer.Argument(
            help="Encoder folder, KIND:WEIGHTS such as panecho:panecho.pt, or "
            "custom:package.module:function."
        ),
    ],
    manifest: Manifest,
    folder: Out,
    overrides: Overrides = None,
) -> None:
    """Embeddings of clips and studies, as Parquet; an interrupted call is finished by the same."""
    from echojepa.config import parse
    from echojepa.launch.embed import EmbedJob, launch

    kind, separator, weights = encoder.partition(":")
    key = "factory" if kind == "custom" else "weights"
    named = {"kind": kind, key: weights} if separator else {"kind": "ours", "path": encoder}
    settings = as_settings(encoder=named, manifest=str(manifest), out=str(folder))
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

    settings = as_settings(probe=str(probe), manifest=str(manifest), out=str(folder))
    table = launch(parse([*settings, *(overrides or [])], PredictJob))
    out.print(f"{len(table)} predictions")
    out.print(folder / "predictions.parquet")


def as_settings(**values: Any) -> list[str]:
    """Arguments as `key=value` settings; a folder may be called 2024 or `a: b`."""
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


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
