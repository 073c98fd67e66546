"""Labels of clips: who has one, on which scale, and manifests that cannot give them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from echojepa.data.block import DataConfig
from echojepa.data.labels import LabelConfig, Target, read_targets
from echojepa.data.manifest.schema import ClipFilter
from echojepa.errors import ManifestError

EF = LabelConfig(column="lvef", kind="regression", views=("A4C",))
VIEW = LabelConfig(column="view", kind="classification")


def targets(manifest: Path, *labels: LabelConfig) -> list[Target]:
    return read_targets(labels, DataConfig(manifest=str(manifest)))


def test_numbers_are_standardised_over_the_clips_that_are_learnt_from(
    phantom_manifest: Path,
) -> None:
    [ef] = targets(phantom_manifest, EF)
    rows = pq.read_table(phantom_manifest).to_pylist()
    raw = {r["clip_id"]: r["lvef"] for r in rows if (r["split"], r["view"]) == ("train", "A4C")}
    assert ef.values.keys() == raw.keys() and len(raw) == 6
    found = ef.of(raw)
    expected = np.array(list(raw.values()))
    np.testing.assert_allclose(found, (expected - expected.mean()) / expected.std(), rtol=1e-6)
    assert found.dtype == np.float32


def test_classes_are_numbered_in_order(phantom_manifest: Path) -> None:
    [view] = targets(phantom_manifest, VIEW)
    assert view.classes == ("A4C", "PSAX-PM")
    rows = pq.read_table(phantom_manifest).to_pylist()
    known = [r for r in rows if r["split"] == "train"]
    found = view.of(r["clip_id"] for r in known)
    assert [view.classes[int(v)] for v in found] == [r["view"] for r in known]


def test_who_has_no_label_is_told_from_who_has_one(phantom_manifest: Path) -> None:
    [ef] = targets(phantom_manifest, EF)
    rows = pq.read_table(phantom_manifest).to_pylist()
    train = [row for row in rows if row["split"] == "train"]
    found = np.isfinite(ef.of(["padding", *(row["clip_id"] for row in train)])).tolist()
    assert found == [False, *(row["view"] == "A4C" for row in train)]


def test_a_label_that_is_no_number_is_none(phantom_manifest: Path, tmp_path: Path) -> None:
    rows = pq.read_table(phantom_manifest)
    values = rows["lvef"].to_pylist()
    learnt = [r["split"] == "train" and r["view"] == "A4C" for r in rows.to_pylist()]
    first, second, *_ = np.flatnonzero(learnt).tolist()
    values[first], values[second] = float("nan"), None
    column = rows.schema.get_field_index("lvef")
    path = tmp_path / "manifest.parquet"
    pq.write_table(rows.set_column(column, "lvef", pa.array(values, pa.float64())), path)
    [ef] = targets(path, EF)
    assert len(ef.values) == 4 and np.isfinite(list(ef.values.values())).all()


def test_manifests_that_cannot_give_a_label_are_refused(
    phantom_manifest: Path, tmp_path: Path
) -> None:
    with pytest.raises(ManifestError, match=r"nope.*Add the column"):
        targets(phantom_manifest, LabelConfig(column="nope", kind="regression"))
    with pytest.raises(ManifestError, match="'view' holds string"):
        targets(phantom_manifest, LabelConfig(column="view", kind="regression"))
    one = LabelConfig(column="view", kind="classification", views=("A4C",))
    with pytest.raises(ManifestError, match="6 clips have the label 'view', and no two different"):
        targets(phantom_manifest, one)
    data = DataConfig(manifest=str(phantom_manifest), where=ClipFilter(views=("PLAX",)))
    with pytest.raises(ManifestError, match="0 clips have the label"):
        read_targets([VIEW], data)
