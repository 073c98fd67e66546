"""What a manifest of 18 million rows costs, in time and memory.

pytest -m soak tests/benchmarks/test_eighteen_million.py -s
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.benchmarks.millions import Cost, cost, write_csv, write_millions

pytestmark = [pytest.mark.soak, pytest.mark.timeout(2 * 3600)]
NUM_ROWS = 18_000_000
READ = "import sys, pyarrow.parquet as pq; pq.read_table(sys.argv[1])"
OPEN = """
import sys
from pathlib import Path
from echojepa.data.clip_table import open_clips
from echojepa.data.manifest.schema import ClipFilter
clips = open_clips(sys.argv[1], ClipFilter(split=None), cache=Path(sys.argv[2]))
print(len(clips), clips.row(len(clips) - 1)["clip_id"])
"""
PICK = """
import sys
from echojepa.probes.tasks import Task, pick_labelled
task = Task(name="ef", label="lvef", kind="regression", views=("A4C",))
picked = pick_labelled(sys.argv[1], task, {"train": 256, "val": 128}, seed=0)
print({split: len(rows) for split, rows in picked.items()})
"""
LABELLED = """
import sys
from echojepa.probes.tasks import Task, read_labelled
task = Task(name="ef", label="lvef", kind="regression", views=("A4C",))
print(len(read_labelled(sys.argv[1], [task])))
"""
IMPORT = """
import sys
from pathlib import Path
from echojepa.data.manifest.import_csv import CsvFiles, opened_csv
with opened_csv(CsvFiles(Path(sys.argv[1]), Path(sys.argv[2]), None)) as lines:
    print(sum(len(chunk) for chunk in lines.chunks()))
"""


@pytest.fixture(scope="module")
def millions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The manifest; its 2 GB go away with the tests."""
    path = tmp_path_factory.mktemp("millions") / "manifest.parquet"
    write_millions(path, NUM_ROWS)
    print(
        f"\n{NUM_ROWS} rows, {path.stat().st_size / 1e9:.2f} GB of Parquet, {os.cpu_count()} cores"
    )
    print(f"{platform.processor() or platform.machine()}; pages of mapped files count as memory")
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def whole(millions: Path) -> Cost:
    """What reading all of it into one process takes: the measure of the others."""
    read = cost([python(READ, millions)])
    print("| what | seconds | of a plain read | GB | bar |\n|---|---|---|---|---|")
    print(f"| read into one Arrow table | {read.seconds:.1f} | 1.00 | {read.peak_gb:.2f} | |")
    return read


def python(code: str, *arguments: Path) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


def manifest(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "echojepa.cli", "manifest", *map(str, arguments)]


def within(name: str, found: Cost, whole: Cost, seconds: float, gigabytes: float) -> None:
    """Print one row of the table, and hold it to its bar."""
    share = found.seconds / whole.seconds
    bar = f"{seconds:.0f} s, {gigabytes} GB"
    print(f"| {name} | {found.seconds:.1f} | {share:.2f} | {found.peak_gb:.2f} | {bar} |")
    assert found.seconds <= seconds
    assert found.peak_gb <= gigabytes


def test_open(millions: Path, whole: Cost, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    opened = cost([python(OPEN, millions, cache)])
    assert opened.output.startswith(f"{NUM_ROWS} ")
    within("open from nothing", opened, whole, 60, 2)
    within("open again", cost([python(OPEN, millions, cache)]), whole, 3, 0.3)
    together = cost([python(OPEN, millions, tmp_path / "other")] * 4)
    within("4 processes open from nothing at once", together, whole, 60, 2)
    assert len(list((tmp_path / "other").glob("*.arrow"))) == 1


def test_commands(millions: Path, whole: Cost, tmp_path: Path) -> None:
    within("manifest validate", cost([manifest("validate", millions)]), whole, 120, 2)
    target = tmp_path / "split.parquet"
    within("manifest split", cost([manifest("split", millions, target)]), whole, 120, 2)
    within("manifest stats", cost([manifest("stats", millions)]), whole, 120, 2)


def test_probes(millions: Path, whole: Cost) -> None:
    picked = cost([python(PICK, millions)])
    assert picked.output.strip() == "{'train': 256, 'val': 128}"
    within("online probe, on one rank", picked, whole, 10, 1)
    within("labelled rows of an evaluation", cost([python(LABELLED, millions)]), whole, 120, 2)


def test_import(millions: Path, whole: Cost, tmp_path: Path) -> None:
    """Without the videos: there are none."""
    lines, identities = tmp_path / "train.csv", tmp_path / "identities.csv"
    write_csv(millions, lines, identities)
    imported = cost([python(IMPORT, lines, identities)])
    assert imported.output.strip() == str(NUM_ROWS)
    within("lines of from-csv, joined", imported, whole, 300, 2)
