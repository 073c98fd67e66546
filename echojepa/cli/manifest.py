"""`echojepa manifest ...`: check, split and describe manifests; build them from others' lists."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from echojepa.cli.common import Overrides, out

app = typer.Typer(help="Build and check manifests.", no_args_is_help=True)
ManifestFile = Annotated[Path, typer.Argument(help="manifest.parquet")]
Root = Annotated[
    Path, typer.Argument(metavar="ROOT", help="Folder of the data set, as it was published.")
]
Target = Annotated[Path, typer.Argument(metavar="OUT", help="Manifest to write.")]
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
    target: Target,
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
    target: Target,
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


PUBLIC = "From public data sets' own lists"
"""Heading of commands in the help; what they have in common is told in `echonet-dynamic`."""


@app.command("echonet-dynamic", rich_help_panel=PUBLIC)
def echonet_dynamic(
    root: Root, target: Target, settings: Overrides = None, fail_on_bad: FailOnBad = False
) -> None:
    """EchoNet-Dynamic: EF and volumes of adults, with the published splits.

    ROOT holds FileList.csv and Videos. All cores of a cluster open the videos: the manifest holds
    what is found there, and says how often the list differs. A table beside it lists, with reasons,
    what can't be used: missing, unreadable, listed twice, without a label.
    """
    from echojepa.data.datasets.echonet_dynamic import read_echonet_dynamic

    _write(partial(read_echonet_dynamic, root), target, settings, fail_on_bad)


@app.command("echonet-pediatric", rich_help_panel=PUBLIC)
def echonet_pediatric(
    root: Root,
    target: Target,
    settings: Overrides = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="cardiobench (test 0, val 1) or echojepa (test 9, val 8)."),
    ] = None,
    folds: Annotated[
        str | None, typer.Option(help="Or name them: test=0,val=1; all others are train.")
    ] = None,
    fail_on_bad: FailOnBad = False,
) -> None:
    """EchoNet-Pediatric: EF, sex, age and size of children, A4C and PSAX, in ten folds.

    ROOT holds A4C and PSAX, each with FileList.csv and Videos. Two protocols are in use, and each
    tests on what the other trains on, so one must be named, or the folds. For the rest, see
    `echojepa manifest echonet-dynamic --help`.
    """
    from echojepa.data.datasets.echonet_pediatric import choose_folds, read_echonet_pediatric

    chosen = choose_folds(protocol, folds)
    _write(partial(read_echonet_pediatric, root, chosen), target, settings, fail_on_bad)


@app.command("camus", rich_help_panel=PUBLIC)
def camus(
    root: Root, target: Target, settings: Overrides = None, fail_on_bad: FailOnBad = False
) -> None:
    """CAMUS: EF, sex, age and image quality of adults, A2C and A4C, with the published splits.

    ROOT holds database_nifti and database_split. Every half sequence is written as a lossless video
    into a folder beside OUT, which all nodes of a cluster share. It runs from end-diastole to
    end-systole: windows for EF must not assume whole beats. Needs `pip install 'echojepa[camus]'`.
    For the rest, see `echojepa manifest echonet-dynamic --help`.
    """
    from echojepa.data.datasets.camus import read_camus

    videos = target.with_name(f"{target.stem}_videos")
    _write(partial(read_camus, root, videos), target, settings, fail_on_bad)


@app.command("mimic", rich_help_panel=PUBLIC)
def mimic(
    root: Root, target: Target, settings: Overrides = None, fail_on_bad: FailOnBad = False
) -> None:
    """MIMIC-IV-Echo: DICOM clips of adults, for pretraining; no labels, views or splits.

    ROOT holds echo-record-list.csv and files. `echojepa manifest split` assigns splits. For the
    rest, see `echojepa manifest echonet-dynamic --help`.
    """
    from echojepa.data.datasets.mimic import read_mimic

    _write(partial(read_mimic, root), target, settings, fail_on_bad)


def _write(
    read: Callable[[], Any], target: Path, settings: list[str] | None, fail_on_bad: bool
) -> None:
    """Look at the files of a data set and write the manifest."""
    from echojepa.config import parse
    from echojepa.launch.manifest import FilesJob, launch_data_set

    bad = _rejected_beside(target)
    job = parse(settings or [], FilesJob)
    sieve = launch_data_set(read(), target, bad, job)
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
    for note, count in sieve.notes.most_common():
        out.print(f"{count} good clips: {note}")
    kinds = ", ".join(f"{count} {kind}" for kind, count in sieve.kinds.most_common())
    bad = f"; {sieve.num_bad} bad: {kinds}" if sieve.num_bad else ""
    where = f", listed in {rejected}" if sieve.num_bad and rejected else ""
    out.print(f"{file}: {sieve.num_good} good clips{bad}{where}")
    if fail_on_bad and sieve.num_bad:
        total = sieve.num_good + sieve.num_bad
        what = f"{sieve.num_bad} of {total} files cannot be used or differ from the manifest"
        raise ManifestError(what, "Fix or drop them.", str(file))
