"""Predictions as the CSV files that CardioBench scores.

    write_cardiobench(spec, predictions, wanted, folder)    # folder/EchoNet-Dynamic/EF/echojepa.csv

The benchmark joins such a file with its own list of labels and scores what both have, without an
error: a missing prediction makes the test set smaller, of a doubled key the first one counts, what
is not finite is left out. So a file is complete and unique by itself, or it is not written. Its
name and place matter, too: every file of a folder is a model, and names are read for views.

Tasks and data sets are called as the folders of the benchmark's own example are.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, model_validator

from echojepa.config import Strict, to_tree
from echojepa.data.manifest.schema import is_number
from echojepa.durable import write_text
from echojepa.errors import ManifestError, PredictionError, StorageError

Window = Literal["A2C", "A3C", "A4C"]
ViewClass = Literal["A2C", "A3C", "A4C", "PSAX", "PLAX", "Other"]
VIEW_CLASSES: tuple[ViewClass, ...] = ("A2C", "A3C", "A4C", "PSAX", "PLAX", "Other")
"""In the scorer's order, of which the first one wins a tie. It derives the last one itself, as what
the others lack to 1."""
KEYS = {
    "EchoNet-Dynamic": {"EF": "FileName", "view": "FileName"},
    "EchoNet-Pediatric": {"EF": "FileName", "view": "FileName"},
    "EchoNet-LVH": dict.fromkeys(("IVSd", "LVIDd", "LVPWd", "view"), "HashedFileName"),
    "CAMUS": {"EF": "patient_id", "view": "unique_id"},
    "TMED2": {"AS": "study_id", "view": "query_key"},
    "CardiacNet": dict.fromkeys(("ASD", "PAH", "view"), "unique_id"),
    "HMCQU": dict.fromkeys(("stemi", "view"), "unique_id"),
    "segRWMA": {"rwma": "patient_id", "view": "patient_view_id"},
}
"""By data set and task, what a file's key column is called."""
_NUMBERS = ("EF", "IVSd", "LVIDd", "LVPWd")
_CHILD_VIEWS = ("A4C", "PSAX")
_SUM_TOLERANCE = 1e-4
_NUM_NAMED = 3


class CardioBenchFile(Strict):
    """One file of the benchmark."""

    task: Literal["EF", "IVSd", "LVIDd", "LVPWd", "AS", "ASD", "PAH", "stemi", "rwma", "view"]
    """What is predicted: ejection fraction, septum, chamber or wall in diastole, aortic stenosis,
    atrial septal defect, pulmonary hypertension, infarction, wall motion, or the view."""
    dataset: str
    """Of which data set; each has some of the tasks."""
    key: str
    """Manifest column of the keys that the benchmark's list of labels has. Predictions have theirs
    in a column of this name."""
    file_name: str = "echojepa.csv"
    """The benchmark's tables call the model what stands before `.csv`."""
    window: Window | None = None
    """From which view rwma is predicted; one file for each."""
    classes: dict[str, ViewClass] = Field(default_factory=dict)
    """By class of a view probe, what the benchmark calls it; not needed where it says the same.
    Classes of one name are added up."""

    @model_validator(mode="after")
    def _scored(self) -> CardioBenchFile:
        if self.dataset not in KEYS:
            raise ValueError(f"dataset {self.dataset!r} is none of {', '.join(KEYS)}")
        if self.task not in KEYS[self.dataset]:
            raise ValueError(f"the tasks of {self.dataset} are {', '.join(KEYS[self.dataset])}")
        if (self.window is not None) != (self.task == "rwma"):
            raise ValueError("rwma needs a window, and no other task has one")
        if self.classes and self.task != "view":
            raise ValueError("only the task view has classes")
        ending = f"_{self.window.lower()}.csv" if self.window else ".csv"
        stem = self.file_name.removesuffix(ending)
        if not stem or stem == self.file_name or "/" in stem:
            raise ValueError(f"file_name {self.file_name!r} is not of the form MODEL{ending}")
        if "_" in stem and self.task != "view":  # another kind of key, one view, or not shown
            raise ValueError(f"file_name {self.file_name!r}: the scorer misreads `_` in {stem!r}")
        if self.window and any(view.lower() in stem.lower() for view in VIEW_CLASSES[:3]):
            raise ValueError(f"file_name {self.file_name!r} names two views")
        return self

    @property
    def path(self) -> Path:
        """Where it lies, below the folder of all files."""
        return Path(self.dataset, self.task, self.file_name)

    @property
    def is_decision(self) -> bool:
        """Whether the benchmark scores yes or no."""
        return self.task not in (*_NUMBERS, "view")

    @property
    def has_views(self) -> bool:
        """Whether every line tells the view as well."""
        return (self.task, self.dataset) == ("EF", "EchoNet-Pediatric")


class Threshold(Strict):
    """From which probability on the answer is yes."""

    value: float = Field(ge=0, le=1)
    """This probability itself is a yes."""
    source: str = Field(min_length=1)
    """Where it comes from, such as "val, highest balanced accuracy"."""


def wanted_keys(spec: CardioBenchFile, rows: pa.Table) -> list[str]:
    """The keys of manifest rows, each once, in the rows' order.

    Args:
        rows: those that the benchmark tests on, whether they can be read or not.

    Raises:
        ManifestError: there is no such column, it does not hold texts, or a row has none.
    """
    there = spec.key in rows.column_names and pa.types.is_string(rows.schema.field(spec.key).type)
    if not there:
        raise ManifestError(
            f"{spec.dataset} needs the text column {spec.key!r}", "Add it, or name another."
        )
    if rows[spec.key].null_count:
        raise ManifestError(
            f"{rows[spec.key].null_count} rows of {spec.dataset} have no {spec.key!r}", "Fill it."
        )
    return list(pc.unique(rows[spec.key]).to_pylist())


def write_cardiobench(
    spec: CardioBenchFile,
    predictions: pa.Table,
    wanted: Sequence[str],
    folder: Path,
    threshold: Threshold | None = None,
) -> Path:
    """Check predictions and write them, all at once or not at all.

    Beside it, a JSON file tells the settings, the threshold and its source, the number of keys and
    the file's SHA-256.

    Args:
        predictions: one row per key. Columns: the key's; then `predicted`, a number in raw units
            (and for EchoNet-Pediatric `view`), or `probability` of a yes, or `prob_CLASS` for
            every class of a view probe. No others, and no truth.
        wanted: the keys that must be there, in the order of the lines.
        folder: of all files of the benchmark; made if there is none.
        threshold: for the tasks that are decisions, and only for them.

    Returns:
        The path of the file.

    Raises:
        PredictionError: keys that are missing, doubled or not wanted; a value that is not finite, a
            probability outside of 0 to 1, probabilities that do not add up to 1, an unknown class;
            other columns; a threshold that is missing or not needed. Nothing has been written.
        StorageError: the folder cannot be written.
    """
    if (threshold is not None) != spec.is_decision:
        says = "needs a" if spec.is_decision else "has no"
        raise _refusal(spec, f"the task {says} threshold", "Give one for decisions only.")
    _check_columns(spec, predictions)
    rows = _in_order(spec, predictions, wanted)
    text = _csv({KEYS[spec.dataset][spec.task]: wanted, **_columns(spec, rows, threshold)})
    note = {
        "settings": to_tree(spec),
        "threshold": None if threshold is None else to_tree(threshold),
        "num_keys": len(wanted),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
    path = folder / spec.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
        write_text(path.with_suffix(".json"), json.dumps(note, indent=1))
    except OSError as error:
        what = f"predictions cannot be written: {error.strerror}"
        raise StorageError(what, "Choose another folder.", str(path)) from None
    return path


def _csv(columns: Mapping[str, Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def _check_columns(spec: CardioBenchFile, predictions: pa.Table) -> None:
    names = predictions.column_names
    texts = [spec.key, "view"] if spec.has_views else [spec.key]
    numbers = ["probability" if spec.is_decision else "predicted"]
    if spec.task == "view":
        numbers = [name for name in names if name.startswith("prob_")] or ["prob_CLASS"]
    if sorted(names) != sorted([*texts, *numbers]):
        raise _refusal(
            spec, f"the columns are {', '.join(names)}", f"Give {', '.join([*texts, *numbers])}."
        )
    for name in names:
        kind = predictions.schema.field(name).type
        if not (pa.types.is_string(kind) if name in texts else is_number(kind)):
            remedy = f"Give {'texts' if name in texts else 'numbers'}."
            raise _refusal(spec, f"the column {name!r} holds {kind}", remedy)


def _in_order(spec: CardioBenchFile, predictions: pa.Table, wanted: Sequence[str]) -> pa.Table:
    """The rows of the wanted keys, in their order."""
    keys = predictions[spec.key].to_pylist()
    row_of = {key: row for row, key in enumerate(keys)}
    if not wanted or not all(wanted):
        raise _refusal(spec, "an empty key, or no key, is wanted", "Check the manifest column.")
    _expect_none(spec, _doubled(wanted), "keys wanted twice")
    _expect_none(spec, _doubled(keys), "keys with several predictions")
    _expect_none(spec, [key for key in wanted if key not in row_of], "keys without a prediction")
    _expect_none(spec, list(row_of.keys() - set(wanted)), "predictions of keys not wanted")
    return predictions.take([row_of[key] for key in wanted])


def _columns(
    spec: CardioBenchFile, rows: pa.Table, threshold: Threshold | None
) -> dict[str, list[str]]:
    """The cells beside the key, by column."""
    if spec.task == "view":
        return _view_columns(spec, rows)
    if threshold is None:
        views = {"view": rows["view"].to_pylist()} if spec.has_views else {}
        unknown = {v for column in views.values() for v in column} - set(_CHILD_VIEWS)
        _expect_none(spec, list(unknown), f"views other than {' and '.join(_CHILD_VIEWS)}")
        return {f"{spec.task}_pred": _texts(_numbers(spec, rows, "predicted")), **views}
    probability = _probabilities(spec, rows, "probability")
    name = spec.task.lower()
    answer = {f"{name}_pred": [str(int(p >= threshold.value)) for p in probability]}
    said = {f"prob_{name}": _texts(probability)}
    return said | answer if spec.task == "rwma" else answer | said


def _view_columns(spec: CardioBenchFile, rows: pa.Table) -> dict[str, list[str]]:
    classes = [n.removeprefix("prob_") for n in rows.column_names if n.startswith("prob_")]
    called: dict[str, ViewClass] = {name: name for name in VIEW_CLASSES} | spec.classes
    _expect_none(spec, [c for c in classes if c not in called], "classes the benchmark lacks")
    said = {name: np.zeros(rows.num_rows) for name in VIEW_CLASSES}
    for name in classes:
        said[called[name]] += _probabilities(spec, rows, f"prob_{name}")
    adds_up = np.abs(np.sum(list(said.values()), axis=0) - 1) <= _SUM_TOLERANCE
    _expect_all(spec, rows, adds_up, "probabilities that do not add up to 1")
    said["Other"] = np.clip(1 - np.sum([said[c] for c in VIEW_CLASSES[:-1]], axis=0), 0, 1)
    best = np.stack([said[c] for c in VIEW_CLASSES]).argmax(axis=0)
    answer = {"view_pred": [str(VIEW_CLASSES[i]) for i in best]}
    return answer | {f"prob_{c}": _texts(said[c]) for c in VIEW_CLASSES[:-1]}


def _numbers(spec: CardioBenchFile, rows: pa.Table, column: str) -> NDArray[np.float64]:
    values = np.asarray(rows[column].cast(pa.float64()).to_numpy(), np.float64)  # null is NaN
    _expect_all(spec, rows, np.isfinite(values), f"values of {column!r} that are not finite")
    return values


def _probabilities(spec: CardioBenchFile, rows: pa.Table, column: str) -> NDArray[np.float64]:
    values = _numbers(spec, rows, column)
    inside = (values >= 0) & (values <= 1)
    _expect_all(spec, rows, inside, f"values of {column!r} outside of 0 to 1")
    return values


def _texts(values: NDArray[np.float64]) -> list[str]:
    """The shortest texts that read back as the same numbers."""
    return [repr(value) for value in values.tolist()]


def _doubled(keys: Iterable[str]) -> list[str]:
    return [key for key, count in Counter(keys).items() if count > 1]


def _expect_all(spec: CardioBenchFile, rows: pa.Table, good: NDArray[np.bool_], what: str) -> None:
    _expect_none(spec, rows[spec.key].filter(pa.array(~good)).to_pylist(), what)


def _expect_none(spec: CardioBenchFile, bad: Sequence[str | None], what: str) -> None:
    """Raise `PredictionError` with the number of the bad and the first few, if there are any."""
    if bad:
        first = ", ".join(repr(one) for one in sorted(bad, key=str)[:_NUM_NAMED])
        more = ", ..." if len(bad) > _NUM_NAMED else ""
        raise _refusal(spec, f"{what}: {len(bad)} ({first}{more})", "Correct the predictions.")


def _refusal(spec: CardioBenchFile, what: str, remedy: str) -> PredictionError:
    return PredictionError(what, f"{remedy} Nothing has been written.", str(spec.path))
