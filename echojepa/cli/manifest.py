"""`echojepa manifest ...`: check, split, describe and import manifests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from echojepa.cli.common import Overrides, out

app = typer.Typer(help="Build and check manifests.", no_args_is_help=True)
ManifestFile = Annotated[Path, typer.Argument(help="manifest.parquet")]


FailOnBad = Annotated[bool, typer.Option(help="Exit with 2 if any file is bad.")]


@app.command()
def validate(
    file: ManifestFile,
    settings: Overrides = None,
    decode: Annotated[bool, typer.Option(help="Also open, decode and hash every file.")] = False,
    target: Annotated[
        Path | None, typer.Option("--out", help="Manifest of the good rows, with hashes.")
    ] = None,
    rejected: Annotated[
        Path | None, typer.Option(help="Table of bad files; beside OUT by default.")
    ] = None,
    fail_on_bad: FailOnBad = False,
) -> None:
    """Check columns, ids, numbers and patient-disjoint splits; with --decode also every file.

    All cores of a cluster open the files: they are counted and hashed, and the first, middle and
    last frame is decoded. `echojepa settings manifest` lists the settings.
    """
    from echojepa.data.manifest.verify import check_all_rows
    from echojepa.errors import ConfigError

    if not decode:
        if settings or target or rejected or fail_on_bad:
            raise ConfigError(
                "settings, --out, --rejected and --fail-on-bad need files to be opened",
                "Add --decode.",
            )
        out.print(f"{file}: {check_all_rows(file)} clips, valid")
        return
    from echojepa.config import parse
    from echojepa.launch.manifest import FilesJob, launch_validate

    bad = rejected or (_rejected_beside(target) if target else None)
    sieve = launch_validate(file, target, bad, parse(settings or [], FilesJob))
    _report(sieve, file, bad, fail_on_bad)


@app.command()
def split(
    file: ManifestFile,
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Manifest to write.")],
    fractions: Annotated[str, typer.Option(help="Shares of train, val, test.")] = "0.8,0.1,0.1",
    seed: Annotated[int, typer.Option(help="Of the assignment.")] = 0,
) -> None:
    """Assign splits by patient; a patient keeps its split when others are added."""
    from echojepa.data.manifest.splits import split_manifest
    from echojepa.errors import ManifestError

    try:
        shares = [float(part) for part in fractions.split(",")]
    except ValueError:
        raise ManifestError(
            f"--fractions {fractions!r} is not three numbers", "Write for instance 0.8,0.1,0.1."
        ) from None
    out.print(split_manifest(file, target, shares, seed))


@app.command()
def stats(file: ManifestFile) -> None:
    """Counts by split, view and Doppler kind; frames, rates and sizes."""
    from echojepa.data.manifest.stats import describe_manifest

    for title, rows in describe_manifest(file).items():
        table = Table(title, *next(iter(rows.values())), title_justify="left")
        for name, values in rows.items():
            table.add_row(name, *values.values())
        out.print(table)


@app.command("from-csv")
def from_csv(
    file: Annotated[Path, typer.Argument(help="Space-delimited `path label` lines, no header.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Manifest to write.")],
    identities: Annotated[
        Path, typer.Option(help="CSV with header: path,patient_id,study_id[,view].")
    ],
    settings: Overrides = None,
    label: Annotated[str | None, typer.Option(help="Column for the label; omit for none.")] = None,
    fail_on_bad: FailOnBad = False,
) -> None:
    """Import a CSV of the reference; patients and studies come from a table, never from paths.

    All cores of a cluster open the videos; the manifest holds what was found there, and a table
    beside it those that can't be used. `echojepa settings manifest` lists the settings.
    """
    from echojepa.config import parse
    from echojepa.data.manifest.import_csv import CsvFiles
    from echojepa.launch.manifest import FilesJob, launch_import

    bad = _rejected_beside(target)
    files = CsvFiles(file, identities, label)
    sieve = launch_import(files, target, bad, parse(settings or [], FilesJob))
    _report(sieve, target, bad, fail_on_bad)


def _rejected_beside(target: Path) -> Path:
    return target.with_suffix(".rejected.parquet")


def _report(sieve: Any, file: Path, rejected: Path | None, fail_on_bad: bool) -> None:
    """Say what was found; bad files are an error only if asked."""
    from echojepa.errors import ManifestError

    for line in sieve.examples:
        out.print(line)
    if sieve.num_bad > len(sieve.examples):
        out.print(f"... and {sieve.num_bad - len(sieve.examples)} more")
    kinds = ", ".join(f"{count} {kind}" for kind, count in sieve.kinds.most_common())
    bad = f"; {sieve.num_bad} bad: {kinds}" if sieve.num_bad else ""
    where = f", listed in {rejected}" if sieve.num_bad and rejected else ""
    out.print(f"{file}: {sieve.num_good} good clips{bad}{where}")
    if fail_on_bad and sieve.num_bad:
        total = sieve.num_good + sieve.num_bad
        what = f"{sieve.num_bad} of {total} files cannot be used or differ from the manifest"
        raise ManifestError(what, "Fix or drop them.", str(file))
