"""Patients who are held out are nowhere else, and nobody is lost."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from echojepa.benchmark.config import HeldOut
from echojepa.benchmark.held_out import cut_manifest
from echojepa.data.manifest.file import read_manifest, write_manifest
from echojepa.errors import ManifestError


@pytest.fixture
def manifest(copied: Path) -> str:
    """The phantom's, every fourth patient a child."""
    table = read_manifest(copied)
    patients = sorted(set(table["patient_id"].to_pylist()))
    children = set(patients[::4])
    values = ["child" if p in children else "adult" for p in table["patient_id"].to_pylist()]
    column = table.column_names.index("population")
    return str(write_manifest(table.set_column(column, "population", pa.array(values)), copied))


def group(*values: str, column: str = "population") -> dict[str, HeldOut]:
    return {"children": HeldOut(column=column, values=values)}


def test_every_row_is_in_one_part(manifest: str, tmp_path: Path) -> None:
    cut_manifest(manifest, group("child"), tmp_path / "parts")
    rest, children = (
        read_manifest(tmp_path / "parts" / f"{n}.parquet") for n in ("rest", "children")
    )
    assert set(rest["population"].to_pylist()) == {"adult"}
    assert set(children["population"].to_pylist()) == {"child"}
    together = rest["clip_id"].to_pylist() + children["clip_id"].to_pylist()
    assert sorted(together) == sorted(read_manifest(manifest)["clip_id"].to_pylist())
    assert all(Path(uri).is_file() for uri in children["uri"].to_pylist())


def test_the_same_cut_gives_the_same_bytes(manifest: str, tmp_path: Path) -> None:
    """Or a resumed run would find another manifest."""
    for name in ("one", "two"):
        cut_manifest(manifest, group("child"), tmp_path / name)
    one, two = ((tmp_path / name / "rest.parquet").read_bytes() for name in ("one", "two"))
    assert one == two


def test_what_cannot_be_held_out_is_said(manifest: str, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="needs the column 'age'"):
        cut_manifest(manifest, group("child", column="age"), tmp_path)
    with pytest.raises(ManifestError, match="never.*'giant'"):
        cut_manifest(manifest, group("giant"), tmp_path)
    with pytest.raises(ManifestError, match="among the rest"):
        cut_manifest(manifest, group("A4C", column="view"), tmp_path)
