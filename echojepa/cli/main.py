"""`echojepa`: one console command, one grammar.

    echojepa COMMAND FILE [key=value ...]

Exit codes: 0 done, 2 the input is wrong (one line: what, where, remedy), 1 anything else.
Heavy imports happen inside the commands, so that `--help` is immediate.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from echojepa.cli import benchmark as benchmark_commands
from echojepa.cli import cluster as cluster_commands
from echojepa.cli import evaluation as evaluation_commands
from echojepa.cli import manifest as manifest_commands
from echojepa.cli import runs as run_commands
from echojepa.cli import settings as settings_commands
from echojepa.cli import weights as weights_commands
from echojepa.cli.common import Address, ConfigFile, Overrides, out
from echojepa.cli.evaluation import results_table
from echojepa.errors import exit_codes

app = typer.Typer(
    name="echojepa",
    help="Pretrain, tune and judge latent-predictive encoders of heart ultrasound on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(manifest_commands.app, name="manifest")
for part in (
    evaluation_commands,
    benchmark_commands,
    run_commands,
    settings_commands,
    weights_commands,
    cluster_commands,
):
    app.add_typer(part.app)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(metavar="[OUT]", help="Where to put it.")] = Path(
        "demo"
    ),
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Settings as phantom.key=value, pretrain.key=value or evaluate.key=value.",
            metavar="[CONFIG.KEY=VALUE]...",
        ),
    ] = None,
) -> None:
    """The whole story on this machine, in minutes: phantoms, pretraining, probes, report."""
    from echojepa.launch.demo import launch

    result = launch(folder, overrides)
    out.print(results_table(result.results))
    out.print(f"report       {result.report}")
    out.print(f"encoder      {result.encoder}")
    out.print(f"TensorBoard  tensorboard --logdir {result.tensorboard}")
    out.print(f"took         {result.seconds / 60:.1f} minutes")


PhantomFile = Annotated[Path | None, typer.Option(help="YAML file; see configs/data.")]


@app.command()
def phantom(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for videos and manifest.")],
    overrides: Overrides = None,
    num_studies: Annotated[
        int | None, typer.Option(help="Studies to write; also as num_studies=N.")
    ] = None,
    config: PhantomFile = None,
    address: Address = None,
) -> None:
    """Write phantom heart studies as video or DICOM files with labels, on all cores.

    More studies can be added to a folder later, and an interrupted call is finished by the same.
    On a cluster of several nodes, OUT is a folder that all of them share.
    """
    from echojepa.launch.phantom import launch
    from echojepa.on_ray.connect import ClusterConfig

    settings = [*(overrides or [])]
    if num_studies is not None:
        settings.append(f"num_studies={num_studies}")
    out.print(launch(_phantom_config(config, settings), folder, ClusterConfig(address=address)))


@app.command("phantom-gallery")
def phantom_gallery(
    file: Annotated[Path, typer.Argument(metavar="OUT.html", help="Page to write.")],
    overrides: Overrides = None,
    config: PhantomFile = None,
    address: Address = None,
) -> None:
    """One page on which every view, machine, population, severity and knob of a phantom plays.

    Frames of 224 pixels unless size=N says otherwise.
    """
    from echojepa.launch.phantom import launch_gallery
    from echojepa.on_ray.connect import ClusterConfig

    settings = ["num_studies=1", "size=224", *(overrides or [])]
    out.print(
        launch_gallery(_phantom_config(config, settings), file, ClusterConfig(address=address))
    )


def _phantom_config(file: Path | None, settings: list[str]) -> Any:
    from echojepa.config import load, parse
    from echojepa.phantom import PhantomConfig

    return load(file, settings, PhantomConfig) if file else parse(settings, PhantomConfig)


@app.command()
def pretrain(file: ConfigFile, overrides: Overrides = None) -> None:
    """Pretrain; the same command resumes an interrupted run."""
    from echojepa.config import load
    from echojepa.launch.pretrain import PretrainJob, launch

    job = load(file, overrides or [], PretrainJob)
    metrics = launch(job)
    out.print(f"{job.run_dir}: loss {metrics['loss']:.4f}" if metrics else f"{job.run_dir}: done")


@app.command()
def sweep(file: ConfigFile, overrides: Overrides = None) -> None:
    """Search settings with Ray Tune; the same command resumes an interrupted search."""
    from echojepa.config import load
    from echojepa.launch.sweep import SweepJob, launch

    best = launch(load(file, overrides or [], SweepJob))
    out.print(best)


def main() -> None:
    """Entry point of the console command."""
    with exit_codes():
        app()


if __name__ == "__main__":
    main()
