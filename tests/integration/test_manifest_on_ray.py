"""Files looked at by a real Ray cluster: `validate --decode`, `from-csv` and public data sets."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.clips import change
from support.public_sets import write_camus, write_dynamic
from typer.testing import CliRunner, Result

from echojepa.cli.main import app
from echojepa.data.manifest.file import read_manifest
from echojepa.errors import ConfigError, ManifestError, StorageError

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]


def run(*arguments: str | Path) -> Result:
    """`echojepa manifest` inside this process, by the cluster of the tests."""
    return CliRunner().invoke(app, ["manifest", *map(str, arguments)])


def test_good_files(phantom_manifest: Path, copied: Path) -> None:
    for path in (phantom_manifest, copied):  # relative and absolute uris
        result = run("validate", path, "--decode", "--fail-on-bad")
        assert result.exception is None
        assert result.stdout.splitlines()[-1] == f"{path}: 24 good clips"


def test_good_rows_go_on_and_the_others_are_listed(copied: Path, tmp_path: Path) -> None:
    change(copied, "num_frames", 3, 25)
    change(copied, "height", 3, 25)
    change(copied, "clip_id", 3, "[b]3[/b]")  # is printed as it is
    change(copied, "uri", 5, str(tmp_path / "gone.mp4"))
    rows = read_manifest(copied).to_pylist()
    out = tmp_path / "checked" / "manifest.parquet"
    result = run("validate", copied, "--decode", "--out", out)
    assert result.exception is None  # only --fail-on-bad makes bad files an error
    *examples, total = result.stdout.splitlines()
    assert examples == [
        "[b]3[/b]: manifest: differs: num_frames is 24, the manifest says 25",
        f"{rows[5]['clip_id']}: open: missing: no such file",
    ]
    rejected = tmp_path / "checked" / "manifest.rejected.parquet"
    ending = f"22 good clips; 2 bad: 1 differs, 1 missing, listed in {rejected}"
    assert total == f"{copied}: {ending}"
    kept = read_manifest(out).to_pylist()
    assert [row["clip_id"] for row in kept] == [
        r["clip_id"] for i, r in enumerate(rows) if i not in (3, 5)
    ]
    assert all(row["content_hash"].startswith("sha256:") for row in kept)
    assert pq.read_table(rejected)["kind"].to_pylist() == ["differs", "missing"]
    again = run("validate", out, "--decode", "--fail-on-bad")  # now against the hashes
    assert again.exception is None


def test_a_script_can_tell(copied: Path) -> None:
    change(copied, "num_frames", 3, 25)
    result = run("validate", copied, "--decode", "--fail-on-bad")
    assert isinstance(result.exception, ManifestError)
    assert str(result.exception).startswith("1 of 24 files cannot be used or differ")


def test_storage_that_fails_is_no_bad_file(copied: Path, tmp_path: Path) -> None:
    """A bucket that nobody serves: nothing is said of the clips, and nothing is written."""
    change(copied, "uri", 5, "s3://bucket/a.mp4?endpoint_override=127.0.0.1:9&scheme=http")
    out = tmp_path / "checked.parquet"
    result = run("validate", copied, "--decode", "--out", out, "read.patience_seconds=0")
    assert isinstance(result.exception, StorageError)
    assert not out.exists()


@pytest.fixture
def reference(copied: Path) -> Path:
    """The phantom as the reference would list it, and the identities."""
    rows = read_manifest(copied).to_pylist()[:3]
    lines = [f"{row['uri']} {row['lvef']}\n" for row in rows]
    (copied.parent / "train.csv").write_text("".join(lines))
    known = [f"{row['uri']},{row['patient_id']},{row['study_id']},{row['view']}\n" for row in rows]
    header = "path,patient_id,study_id,view\n"
    (copied.parent / "identities.csv").write_text(header + "".join(known))
    return copied


def test_from_csv(reference: Path) -> None:
    folder = reference.parent
    target = folder / "imported.parquet"
    identities = folder / "identities.csv"
    arguments = ("from-csv", folder / "train.csv", target, "--identities", identities)
    assert run(*arguments, "--label", "lvef").exit_code == 0
    imported = read_manifest(target).to_pylist()
    original = read_manifest(reference).to_pylist()[:3]
    for row, source in zip(imported, original, strict=True):
        same = ("uri", "patient_id", "study_id", "view", "num_frames", "height", "width", "lvef")
        assert {name: row[name] for name in same} == {name: source[name] for name in same}
    assert run("validate", target, "--decode", "--fail-on-bad").exit_code == 0
    assert run(*arguments, "read.decoder=pyav", "--fail-on-bad").exit_code == 0
    assert "lvef" not in read_manifest(target).column_names


def test_from_csv_refuses(reference: Path) -> None:
    folder = reference.parent
    with (folder / "train.csv").open("a") as file:
        file.write("stranger.mp4 0\n")
    target = folder / "imported.parquet"
    identities = folder / "identities.csv"
    result = run("from-csv", folder / "train.csv", target, "--identities", identities)
    assert str(result.exception).startswith("line 4 names a video that has no row in identities")
    assert not target.exists()
    result = run("from-csv", folder / "train.csv", target)
    assert result.exit_code == 2
    assert "--identities" in result.output
    result = run("from-csv", folder / "train.csv", target, "--identities", identities, "x=1")
    assert isinstance(result.exception, ConfigError)


def test_a_public_data_set(tmp_path: Path) -> None:
    root = write_dynamic(tmp_path / "root")
    target = tmp_path / "dynamic.parquet"
    with (root / "FileList.csv").open() as file:
        header, first, *others = file.read().splitlines()
    name, _, *rest = first.split(",")
    fewer = others[0].replace(",4,", ",3,")  # frames
    lines = [header, ",".join([name, "", *rest]), fewer, *others[1:]]
    (root / "FileList.csv").write_text("\n".join(lines))
    result = run("echonet-dynamic", root, target)
    assert result.exception is None
    rejected = target.with_suffix(".rejected.parquet")
    assert result.stdout.splitlines() == [
        f"{name}: list: no_label: EF is empty",
        "1 good clips: num_frames is not what the list says",
        f"{target}: 5 good clips; 1 bad: 1 no_label, listed in {rejected}",
    ]
    assert run("validate", target, "--decode", "--fail-on-bad").exception is None
    failed = run("echonet-dynamic", root, target, "--fail-on-bad")
    assert str(failed.exception).startswith("1 of 6 files cannot be used")


def test_a_public_data_set_whose_videos_are_made(tmp_path: Path) -> None:
    target = tmp_path / "out" / "camus.parquet"
    result = run("camus", write_camus(tmp_path / "root"), target, "--fail-on-bad")
    assert result.exception is None
    rows = read_manifest(target).to_pylist()
    assert {Path(row["uri"]).parent for row in rows} == {tmp_path / "out" / "camus_videos"}
    assert run("validate", target, "--decode", "--fail-on-bad").exception is None
