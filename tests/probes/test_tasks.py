"""Tasks: which clips they use, and what is said when there are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from echojepa.errors import ManifestError
from echojepa.probes.tasks import Task, labelled_rows, labels_of, pick

EF = Task(name="ejection fraction", label="lvef", kind="regression")
VIEW = Task(name="which view", label="view", kind="classification")


def table(**columns: list[Any]) -> pa.Table:
    """Six clips: two per split."""
    base: dict[str, Any] = {
        "clip_id": ["a", "b", "c", "d", "e", "f"],
        "patient_id": ["p", "p", "q", "q", "r", "r"],
        "study_id": ["1", "2", "3", "4", "5", "6"],
        "split": ["train", "train", "val", "val", "test", "test"],
        "view": ["A4C", "A2C", "A4C", "A2C", "A4C", "A2C"],
        "lvef": [10.0, 20.0, 30.0, 40.0, 50.0, 60.0],
    }
    return pa.table(base | columns)


def ids(rows: pa.Table) -> list[str]:
    """Clip ids of rows."""
    found: list[str] = rows["clip_id"].to_pylist()
    return found


def test_rows_without_label_or_split_are_left_out() -> None:
    lvef = [10.0, None, 30.0, None, 50.0, 60.0]
    assert ids(labelled_rows(table(lvef=lvef), EF)) == ["a", "c", "e", "f"]
    split = ["train", "train", "val", None, "test", None]
    assert ids(labelled_rows(table(split=split), EF)) == ["a", "b", "c", "e"]


def test_not_a_number_is_no_label() -> None:
    lvef = [10.0, float("nan"), 30.0, 40.0, float("nan"), 60.0]
    assert ids(labelled_rows(table(lvef=lvef), EF)) == ["a", "c", "d", "f"]


def test_only_the_views_of_the_task() -> None:
    task = EF.model_copy(update={"views": ("A2C", "PLAX")})
    assert ids(labelled_rows(table(), task)) == ["b", "d", "f"]
    unknown = [None, "A2C", "A4C", "A2C", "A4C", None]
    assert ids(labelled_rows(table(view=unknown), task)) == ["b", "d"]


def test_a_missing_column_is_named() -> None:
    task = EF.model_copy(update={"label": "gls"})
    with pytest.raises(ManifestError, match="task 'ejection fraction' needs the column 'gls'"):
        labelled_rows(table(), task)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_labels_is_named(split: str) -> None:
    splits = table()["split"].to_pylist()
    lvef = [None if s == split else 1.0 for s in splits]
    with pytest.raises(ManifestError, match=f"'ejection fraction' has no .* in split '{split}'"):
        labelled_rows(table(lvef=lvef), EF)


def test_no_row_at_all_is_the_same_error() -> None:
    task = EF.model_copy(update={"views": ("PLAX",)})
    with pytest.raises(ManifestError, match="no readable labelled clip in split 'train'"):
        labelled_rows(table(), task)


def test_labels_keep_order_and_type() -> None:
    labels = labels_of(labelled_rows(table(lvef=[1, 2, 3, 4, 5, 6]), EF), EF)
    assert labels.clip_ids == ["a", "b", "c", "d", "e", "f"]
    assert labels.splits.tolist() == ["train", "train", "val", "val", "test", "test"]
    assert labels.values.dtype == np.float64
    assert labels.values.tolist() == [1, 2, 3, 4, 5, 6]
    classes = labels_of(table(), VIEW).values
    assert classes.tolist() == ["A4C", "A2C", "A4C", "A2C", "A4C", "A2C"]


def test_fractions_are_not_truncated() -> None:
    """Neither as numbers nor as the names of classes."""
    rows = table(lvef=[0.4, 0.6, 0.4, 0.6, 0.4, 0.6])
    assert labels_of(rows, EF).values.tolist() == [0.4, 0.6] * 3
    steps = VIEW.model_copy(update={"label": "lvef"})
    assert labels_of(labelled_rows(rows, steps), steps).values.tolist() == ["0.4", "0.6"] * 3


def test_text_is_no_number() -> None:
    task = EF.model_copy(update={"label": "view"})
    with pytest.raises(ManifestError, match="'view'"):
        labels_of(labelled_rows(table(), task), task)


CLIPS = [f"clip-{i}" for i in range(200)]


def picked(clip_ids: list[str], number: int, seed: int = 0) -> list[str]:
    """Ids that `pick` picks."""
    return pick(clip_ids, number, seed)


def test_picks_do_not_depend_on_the_order_of_the_clips() -> None:
    shuffled = [CLIPS[i] for i in np.random.default_rng(0).permutation(len(CLIPS))]
    assert picked(shuffled, 20) == picked(CLIPS, 20)
    assert picked(CLIPS[::-1], 20) == picked(CLIPS, 20)


def test_picks_stay_when_clips_are_added() -> None:
    more = [*CLIPS, *(f"new-{i}" for i in range(100))]
    ranked = [clip for clip in picked(more, len(more)) if clip.startswith("clip")]
    assert ranked == picked(CLIPS, len(CLIPS))
    kept = set(picked(more, 60)) & set(CLIPS)
    assert kept <= set(picked(CLIPS, 60))
    assert len(kept) > 20


def test_picks_never_change() -> None:
    assert picked(["a", "b", "c", "d", "e"], 5) == ["d", "c", "e", "a", "b"]


def test_seeds_pick_differently_and_no_clip_twice() -> None:
    assert picked(CLIPS, 20, seed=1) != picked(CLIPS, 20)
    assert sorted(picked(CLIPS, 500)) == sorted(CLIPS)
    assert pick(CLIPS, 0, 0) == []


def test_a_study_has_one_label() -> None:
    same = ["1", "1", "3", "4", "5", "6"]
    with pytest.raises(ManifestError, match="study '1' has several values of 'lvef'.*to clip"):
        labelled_rows(table(study_id=same), EF)
    assert len(labelled_rows(table(study_id=same), EF.model_copy(update={"level": "clip"}))) == 6
    assert len(labelled_rows(table(study_id=same, lvef=[1.0, 1.0, 3.0, 4.0, 5.0, 6.0]), EF)) == 6


def test_a_study_has_one_patient() -> None:
    """Ids that are numbered within each patient would mix them up."""
    same = ["1", "2", "1", "2", "1", "2"]
    by_study = VIEW.model_copy(update={"level": "study", "label": "sex"})
    rows = table(study_id=same, sex=["f", "m"] * 3)
    with pytest.raises(ManifestError, match=r"study '1' has clips of several patients; 2 such"):
        labelled_rows(rows, by_study)
    assert len(labelled_rows(rows, VIEW)) == 6


def test_only_splits_that_are_asked_for_are_needed() -> None:
    test = table().slice(4)
    assert ids(labelled_rows(test, VIEW, ("test",))) == ["e", "f"]
    with pytest.raises(ManifestError, match="in split 'train'"):
        labelled_rows(test, VIEW)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "a\\b"])
def test_a_name_is_one_that_a_folder_can_have(name: str) -> None:
    """Fitted probes lie in a folder of this name."""
    with pytest.raises(ValidationError, match="name"):
        Task(name=name, label="lvef", kind="regression")


def test_groups_are_those_columns_that_there_are() -> None:
    rows = table(vendor=["a", None, "b", "a", "b", "b"])
    labels = labels_of(rows, EF, ("vendor", "sex"))
    assert {name: values.tolist() for name, values in labels.groups.items()} == {
        "vendor": ["a", "unknown", "b", "a", "b", "b"]
    }


def test_cutoffs_are_of_numbers() -> None:
    with pytest.raises(ValidationError, match="cutoffs are of regression labels"):
        Task(name="view", label="view", kind="classification", cutoffs=(1.0,))
