"""`echojepa export` and `echojepa import-weights`: encoders to and from other software."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from echojepa.cli.common import Overrides, out

app = typer.Typer()

ExportFormat = Literal["safetensors", "huggingface", "vjepa2"]
Branch = Literal["target", "online"]


@app.command()
def export(
    source: Annotated[Path, typer.Argument(help="Run folder, checkpoint or encoder folder.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Folder (vjepa2: file) to write.")],
    format: Annotated[
        ExportFormat, typer.Option("--format", help="Whose names the weights get.")
    ] = "safetensors",
) -> None:
    """Export an encoder: of a run's newest checkpoint, of a checkpoint, or for other software."""
    from echojepa.runs.export import export

    out.print(export(source, target, format))


@app.command("import-weights")
def import_weights(
    source: Annotated[Path, typer.Argument(help=".pt, .safetensors or Hugging Face folder.")],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Encoder folder to write.")],
    branch: Annotated[Branch, typer.Option(help="Which encoder of the file.")] = "target",
    overrides: Overrides = None,
) -> None:
    """Turn V-JEPA 2, EchoJEPA or Hugging Face weights into an encoder folder."""
    from echojepa.config import parse
    from echojepa.models.formats.import_weights import ImportConfig, import_weights

    options = parse([f"branch={branch}", *(overrides or [])], ImportConfig)
    report = import_weights(source, folder, options)
    if report.inflated:
        out.print("the 2-D patch embedding was spread over the frames of a tubelet")
    for name in report.not_taken:
        out.print(f"not taken over: {name}")
    for name in report.stay_new:
        out.print(f"left at its initial value: {name}")
    out.print(f"{report.num_loaded} tensors taken over")
    out.print(report.folder)
