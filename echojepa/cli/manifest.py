"""`echojepa manifest ...`: check, split, describe and import manifests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from echojepa.cli.common import out

app = typer.Typer(help="Build and check manifests.", no_args_is_help=True)
ManifestFile = Annotated[Path, typer.Argument(help="manifest.parquet")]


@app.command()
def validate(
    file: ManifestFile,
    decode: Annotated[bool, typer.Option(help="Also open every video and count frames.")] = False,
) -> None:
    """Check columns, ids, numbers and patient-disjoint splits."""
    from echojepa.data.manifest import read_manifest, with_absolute_uris
    from echojepa.data.verify import find_problems
    from echojepa.errors import ManifestError

    table = read_manifest(file)
    if decode:
        problems = find_problems(with_absolute_uris(table, file.resolve().parent))
        for clip_id, problem in problems:
            out.print(f"{clip_id}: {problem}")
        num_wrong = len({clip_id for clip_id, _ in problems})
        if num_wrong:
            raise ManifestError(
                f"{num_wrong} of {len(table)} clips are not what the manifest says",
                "Fix or drop them.",
                str(file),
            )
    out.print(f"{file}: {len(table)} clips, valid")


@app.command()
def split(
    file: ManifestFile,
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Manifest to write.")],
    fractions: Annotated[str, typer.Option(help="Shares of train, val, test.")] = "0.8,0.1,0.1",
    seed: Annotated[int, typer.Option(help="Of the assignment.")] = 0,
) -> None:
    """Assign splits by patient; a patient keeps its split when others are added."""
    from echojepa.data.manifest import assign_splits, read_without_splits, write_manifest
    from echojepa.errors import ManifestError

    try:
        shares = [float(part) for part in fractions.split(",")]
    except ValueError:
        raise ManifestError(
            f"--fractions {fractions!r} is not three numbers", "Write for instance 0.8,0.1,0.1."
        ) from None
    out.print(write_manifest(assign_splits(read_without_splits(file), shares, seed), target))


@app.command()
def stats(file: ManifestFile) -> None:
    """Counts by split, view and Doppler kind; frames, rates and sizes."""
    from echojepa.data.manifest import read_manifest
    from echojepa.data.manifest_stats import describe_manifest

    for title, rows in describe_manifest(read_manifest(file)).items():
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
    label: Annotated[str | None, typer.Option(help="Column for the label; omit for none.")] = None,
) -> None:
    """Import a CSV of the reference; patients and studies come from a table, never from paths."""
    from echojepa.data.import_csv import import_csv

    out.print(import_csv(file, identities, label, target))
