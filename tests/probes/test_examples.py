"""Which clips make an example, and what a probe is shown of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from echojepa.data.sampling import ClipConfig
from echojepa.errors import BadDataError
from echojepa.probes.examples import Arranged, Examples, Material, arranged, examples_of
from echojepa.probes.features import Shape
from echojepa.probes.store import Features, FeatureStore, fill
from echojepa.probes.tasks import Slot, Task, pick

RVSP = Task(
    name="rvsp",
    label="rvsp",
    kind="regression",
    slots=(
        Slot(view="A4C", doppler="none"),
        Slot(view="A4C", doppler="colour"),
        Slot(view="PSAX-AV"),
    ),
)
CLIPS = (
    ("a1", "s1", "A4C", "none", 31.0),
    ("a2", "s1", "A4C", "none", 31.0),
    ("a3", "s1", "A4C", "colour", 31.0),
    ("a4", "s1", "PSAX-AV", "spectral", 31.0),
    ("b1", "s2", "PSAX-AV", None, 42.0),
    ("b2", "s2", "PLAX", "none", 42.0),
    ("c1", "s3", "PLAX", "none", 53.0),
    ("d1", "s4", "A4C", "colour", 64.0),
    ("d2", "s4", "A4C", "spectral", 64.0),
)
NAMES = [clip[0] for clip in CLIPS]
ROWS = pa.Table.from_pylist(
    [
        {
            "clip_id": clip_id,
            "patient_id": f"patient of {study}",
            "study_id": study,
            "split": "train",
            "view": view,
            "doppler": doppler,
            "rvsp": value,
            "vendor": f"vendor of {study}",
        }
        for clip_id, study, view, doppler, value in CLIPS
    ]
)
W, P, K, D = 2, 3, 4, 5
RNG = np.random.default_rng(0)
POOLED = RNG.normal(size=(len(CLIPS), W, P)).astype(np.float32)
TOKENS = torch.from_numpy(RNG.normal(size=(len(CLIPS), W, K, D))).to(torch.bfloat16)


def shown(readable: set[str]) -> dict[str, list[str]]:
    """Clips by study."""
    found = arranged(ROWS, RVSP, readable)
    studies = ROWS["study_id"].take(pa.array(found.first)).to_pylist()
    return dict(zip(studies, found.clips.tolist(), strict=True))


def features(folder: Path | None = None) -> Features:
    """Of all clips; with their tokens, if there is a folder to keep them in."""
    if folder is None:
        return Features(NAMES, [None] * len(NAMES), POOLED)
    store = FeatureStore(folder, NAMES, Shape(W, P, K, D), shard_rows=4)
    store.begin({}, ClipConfig(num_frames=4, fps=10.0, size=16))
    columns = {
        "clip_id": NAMES,
        "problem": [""] * len(NAMES),
        "pooled:a": POOLED,
        "tokens:a": TOKENS.view(torch.uint16).numpy(),
    }
    fill({"a": store}, [columns])
    return store.read()


def test_slots_are_filled_by_view_and_doppler() -> None:
    found = shown(set(NAMES) - {"a2"})
    assert found == {"s1": ["a1", "a3", "a4"], "s2": ["", "", "b1"], "s4": ["", "d1", ""]}
    assert arranged(ROWS, RVSP, set(NAMES)).slots == ("A4C none", "A4C colour", "PSAX-AV")


def test_of_several_clips_for_a_slot_a_hash_picks_one() -> None:
    assert shown(set(NAMES))["s1"][0] == pick(["a1", "a2"], 1, seed=0)[0]


def test_an_unreadable_clip_is_absent_or_another_takes_its_place() -> None:
    (picked,) = pick(["a1", "a2"], 1, seed=0)
    (other,) = {"a1", "a2"} - {picked}
    assert shown(set(NAMES) - {picked})["s1"] == [other, "a3", "a4"]
    assert shown(set(NAMES) - {"a1", "a2"})["s1"] == ["", "a3", "a4"]


@pytest.mark.parametrize(
    ("readable", "studies"),
    [
        (set(NAMES), ["s1", "s2", "s4"]),
        (set(NAMES) - {"b1"}, ["s1", "s4"]),
        (set(NAMES) - {"d1"}, ["s1", "s2"]),  # its other clip fits no slot
        ({"a4"}, ["s1"]),
        ({"b2", "c1", "d2"}, []),
        (set[str](), []),
    ],
    ids=("all", "without b1", "without d1", "a4 alone", "no slot's", "none"),
)
def test_a_study_without_a_clip_for_any_slot_is_no_example(
    readable: set[str], studies: list[str]
) -> None:
    examples = examples_of(ROWS, RVSP, readable)
    assert examples.labels.studies.tolist() == studies
    assert examples.clips.shape == (len(studies), 3)
    assert Material(examples, features()).vectors.shape == (len(studies), 3 * P)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_rows_is_irrelevant(seed: int) -> None:
    """Labels are those of the study, whichever of its clips comes first."""
    order = np.random.default_rng(seed).permutation(len(CLIPS))
    examples = examples_of(ROWS.take(order), RVSP, set(NAMES), ("vendor",))
    assert np.array_equal(examples.clips, examples_of(ROWS, RVSP, set(NAMES)).clips)
    labels = examples.labels
    assert labels.studies.tolist() == ["s1", "s2", "s4"]
    assert labels.values.tolist() == [31.0, 42.0, 64.0]
    assert labels.patients.tolist() == [f"patient of {s}" for s in labels.studies]
    assert labels.groups["vendor"].tolist() == [f"vendor of {s}" for s in labels.studies]
    assert labels.weights().tolist() == [1.0, 1.0, 1.0]


def test_without_slots_every_readable_clip_is_an_example() -> None:
    task = Task(name="rvsp", label="rvsp", kind="regression")
    examples = examples_of(ROWS, task, set(NAMES) - {"b1", "d2"})
    assert examples.clips[:, 0].tolist() == ["a1", "a2", "a3", "a4", "b2", "c1", "d1"]
    assert examples.labels.clip_ids == examples.clips[:, 0].tolist()
    assert examples.labels.values.tolist() == [31.0] * 4 + [42.0, 53.0, 64.0]
    assert examples.slots == ("",)


def material(folder: Path | None = None) -> Material:
    """Two studies: one with all slots, one with the last alone; clips in no order."""
    clips = np.array([["d1", "", "b1"], ["a4", "a1", "c1"]])
    return Material(Arranged(np.array([0, 1]), clips, ("x", "y", "z")), features(folder))


def row(clip_id: str) -> int:
    return NAMES.index(clip_id)


def test_vectors_stand_slot_by_slot_and_are_nan_where_one_is_absent() -> None:
    found = material().vectors.reshape(2, 3, P)
    assert np.isnan(found[0, 1]).all() and np.isfinite(np.delete(found, 1, axis=1)).all()
    for place, clip_id in [((0, 0), "d1"), ((0, 2), "b1"), ((1, 0), "a4"), ((1, 1), "a1")]:
        np.testing.assert_allclose(found[place], POOLED[row(clip_id)].mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize("kept", [True, False])
def test_windows_stand_in_their_slots_with_their_tokens(tmp_path: Path, kept: bool) -> None:
    """Of pooled features alone, a window is one token."""
    shown = material(tmp_path if kept else None)
    expected: Any = TOKENS.float() if kept else torch.from_numpy(POOLED)[:, :, None]
    assert (shown.num_samples, shown.clips, shown.views) == (2, W, ("x", "y", "z"))
    assert (shown.tokens, shown.width) == ((K, D) if kept else (1, P))
    batch = shown.batch(np.array([1, 0, 1]))
    assert batch.tokens.shape == (3, 3 * W, shown.tokens, shown.width)
    for sample, clips in enumerate((["a4", "a1", "c1"], ["d1", "", "b1"], ["a4", "a1", "c1"])):
        for view, clip_id in enumerate(clips):
            for window in range(W):
                slot = view * W + window
                there = clip_id != ""
                assert bool(batch.present[sample, slot]) == there
                wanted = expected[row(clip_id), window] if there else 0 * expected[0, 0]
                assert torch.equal(batch.tokens[sample, slot], wanted), (sample, slot)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_not_taken_for_absent(value: float) -> None:
    """It would be replaced by the mean of training, and nobody would know."""
    pooled = POOLED.copy()
    pooled[row("a1"), 1, 2] = value
    found = Features(NAMES, [None] * len(NAMES), pooled)
    both = examples_of(ROWS, RVSP, {"a1", "a3"})
    examples = Examples(both.first, np.array([["a1"]]), ("",), both.labels)
    with pytest.raises(BadDataError, match=r"1 clip\(s\) are not finite, those of 'a1'"):
        _ = Material(examples, found).vectors
    fine = Examples(both.first, np.array([["a3"]]), ("",), both.labels)
    assert np.isfinite(Material(fine, found).vectors).all()
