"""`echojepa benchmark`: ways of pretraining at equal cost, judged alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from echojepa.cli.common import ConfigFile, Overrides, out

if TYPE_CHECKING:
    from echojepa.benchmark.tables import Table as Told
    from echojepa.launch.benchmark_arms import Plan

app = typer.Typer()


@app.command()
def benchmark(
    file: ConfigFile,
    overrides: Overrides = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Take FILE_quick.yaml: the machinery in minutes.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what would be run, and write nothing.")
    ] = False,
) -> None:
    """Pretrain all arms at equal cost, judge them alike; one table and one page.

    The same command goes on where it was interrupted.
    """
    from echojepa.config import load
    from echojepa.launch import benchmark as job_of
    from echojepa.launch.benchmark_arms import BenchmarkJob

    if quick:
        file = file.with_name(f"{file.stem}_quick{file.suffix}")
    job = load(file, overrides or [], BenchmarkJob)
    if plan:
        _say(job_of.plan(job))
        return
    folder = job_of.launch(job)
    out.print((folder / "benchmark.md").read_text())
    out.print(folder / "benchmark.html")


@app.command()
def noise_curves(file: ConfigFile, overrides: Overrides = None) -> None:
    """A benchmark per level of the phantom's noise; tables and curves over it.

    The same command goes on where it was interrupted.
    """
    from echojepa.benchmark.noise import NoiseConfig
    from echojepa.config import load
    from echojepa.launch import noise

    folder = noise.launch(load(file, overrides or [], NoiseConfig))
    out.print((folder / "noise.md").read_text())
    out.print(folder / "noise.html")


def _say(plan: Plan) -> None:
    """What would be run."""
    from echojepa.benchmark.tables import plan_table

    out.print(_on_terminal(plan_table(plan.arms, plan.num_seeds)))
    hours = "unknown" if plan.hours is None else f"{plan.hours:.2f} hours"
    out.print(f"training steps of all arms and seeds: {hours}; evaluation and starts come on top")


def _on_terminal(table: Told) -> Table:
    shown = Table(*(head.text for head in table.heads))
    for row in table.rows:
        shown.add_row(*(f"{cell.text} {cell.small}".rstrip() for cell in row))
    return shown
