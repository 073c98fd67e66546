"""A chosen head is the best one, is kept whole, and takes no samples of another shape."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from support.grids import EF, VIEW, VIEWS, arranged, fractions, labels, samples
from support.paths import contents
from support.plain_heads import PlainAttentive

from echojepa.errors import BadDataError, CheckpointError
from echojepa.probes.grid.config import GridConfig
from echojepa.probes.grid.fit import fit_grid
from echojepa.probes.grid.fitted import Chosen, GridFit, HeadRecord, choose
from echojepa.probes.grid.samples import ArraySamples, Batch

SLOTS = (2, 2)


def fitted(*, classes: bool = False, **settings: Any) -> tuple[GridFit, ArraySamples]:
    """A small fit, and its samples."""
    tokens, present, splits = samples(slots=SLOTS)
    numbers = fractions(tokens, present)
    values = np.where(numbers > 60, "high", np.where(numbers > 52, "mid", "low"))
    known = labels(values, splits, VIEW) if classes else labels(numbers, splits, EF)
    config = GridConfig(
        **{"num_heads": 4, "lr": (1e-2, 1e-3), "weight_decay": (0.1,), "epochs": 3, **settings}
    )
    shown = arranged(tokens, present, SLOTS)
    return fit_grid(config, shown, known), shown


@pytest.mark.parametrize("fusion", ["early", "late"])
@pytest.mark.parametrize("settings", [{}, {"head": "mlp"}, {"depth": 2}], ids=str)
@pytest.mark.parametrize("classes", [True, False])
def test_a_saved_probe_predicts_the_same_bytes(
    tmp_path: Path, settings: dict[str, Any], fusion: str, classes: bool
) -> None:
    fit, shown = fitted(classes=classes, fusion=fusion, **settings)
    fit.save(tmp_path / "new" / "probe")
    again = GridFit.load(tmp_path / "new" / "probe")
    assert again.record == fit.record
    index = np.array([80, 3, 41, 3])
    said = fit.predict(shown, index)
    assert again.predict(shown, index).tobytes() == said.tobytes()
    assert said.dtype == np.float64 and said.shape == ((4, 3) if classes else (4,))
    np.testing.assert_array_equal(said[1], said[3])
    if classes:
        np.testing.assert_allclose(said.sum(axis=1), 1, atol=1e-12)
        assert fit.record.target.classes == ("high", "low", "mid")
    assert fit.predict(shown, index[:0]).shape == (0, *said.shape[1:])
    again.save(tmp_path / "twice")
    assert contents(tmp_path / "twice") == contents(tmp_path / "new" / "probe")


def test_the_file_of_weights_is_one_published_head(tmp_path: Path) -> None:
    """Plain torch, with the scaler of the record, says the same."""
    fit, shown = fitted()
    fit.save(tmp_path)
    alone = PlainAttentive(16, 1, 4, 1, SLOTS)
    alone.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    target = json.loads((tmp_path / "probe.json").read_text())["target"]
    index = np.arange(81)
    with torch.no_grad():
        z = alone(*shown.batch(index))[:, 0].double().numpy()
    np.testing.assert_allclose(
        fit.predict(shown, index), z * target["deviation"] + target["mean"], atol=1e-4
    )


def without_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("linear.bias")
    save_file(tensors, folder / "model.safetensors")


def of_another_shape(folder: Path) -> None:
    change(folder, lambda tree: tree["shape"].update(width=32))


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-50])


def change(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    tree = json.loads((folder / "probe.json").read_text())
    edit(tree)
    (folder / "probe.json").write_text(json.dumps(tree))


BROKEN: dict[str, Callable[[Path], Any]] = {
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "no record": lambda folder: (folder / "probe.json").unlink(),
    "cut weights": cut,
    "a tensor is missing": without_a_tensor,
    "another width": of_another_shape,
    "record is not JSON": lambda folder: (folder / "probe.json").write_text("{"),
    "no scaler": lambda folder: change(folder, lambda tree: tree.pop("target")),
    "unknown setting": lambda folder: change(folder, lambda tree: tree["config"].update(speed=1)),
    "another format": lambda folder: change(folder, lambda tree: tree.update(format="other")),
    "deviation of zero": lambda folder: change(
        folder, lambda tree: tree["target"].update(deviation=0.0)
    ),
    "a head that is not in the table": lambda folder: change(
        folder, lambda tree: tree["chosen"].update(head=2)
    ),
    "NaN for a mean": lambda folder: change(
        folder, lambda tree: tree["target"].update(mean=float("nan"))
    ),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_a_damaged_probe_is_not_read(tmp_path: Path, damage: str) -> None:
    fit, _ = fitted()
    fit.save(tmp_path)
    GridFit.load(tmp_path)
    BROKEN[damage](tmp_path)
    with pytest.raises(CheckpointError):
        GridFit.load(tmp_path)


def test_samples_of_another_shape_are_refused() -> None:
    fit, shown = fitted()
    batch = shown.batch(np.arange(4))
    tokens, present = batch.tokens.numpy(), batch.present.numpy()
    others = {
        "order of views": ArraySamples(tokens, present, VIEWS[::-1]),
        "clips instead of views": ArraySamples(tokens, present),
        "width": ArraySamples(tokens[..., :8], present, VIEWS),
        "tokens": ArraySamples(tokens[:, :, :3], present, VIEWS),
    }
    for other in others.values():
        with pytest.raises(CheckpointError, match="was fitted on"):
            fit.predict(other, np.arange(4))
    tokens[2, present[2].nonzero()[0][0], 0, 0] = np.nan
    with pytest.raises(BadDataError, match="sample 2 has features that are not finite"):
        fit.predict(ArraySamples(tokens, present, VIEWS), np.arange(4))


class Counting(ArraySamples):
    """Notes how many samples are asked for at once."""

    asked: list[int]

    def batch(self, index: NDArray[np.int64]) -> Batch:
        self.asked.append(len(index))
        return super().batch(index)


def test_no_more_than_a_batch_is_held(tmp_path: Path) -> None:
    """Thousands of samples from a file, of which a batch at a time comes into memory."""
    number = 3000
    file = np.lib.format.open_memmap(
        tmp_path / "tokens.npy", mode="w+", dtype=np.float16, shape=(number, 1, 6, 16)
    )
    rng = np.random.default_rng(0)
    file[:] = rng.normal(size=file.shape)
    values = np.asarray(file[:, 0].mean(axis=1, dtype=np.float64) @ np.linspace(-9, 9, 16) + 55)
    splits = np.repeat(["train", "val", "test"], [100, 100, 2800])
    shown = Counting(np.load(tmp_path / "tokens.npy", mmap_mode="r"))
    for head in ("linear", "attentive"):
        shown.asked = []
        config = GridConfig(
            head=head, num_heads=4, lr=(1e-2,), weight_decay=(0.1,), epochs=3, batch=32
        )
        fit = fit_grid(config, shown, labels(values, splits))
        assert max(shown.asked) <= 32
        passes = 1 if head == "linear" else 3
        assert sum(shown.asked) == passes * 200, "what only the mean matters of is read once"
        shown.asked = []
        fit.predict(shown, np.arange(number))
        assert max(shown.asked) <= 32
        assert sum(shown.asked) == number


def test_ties_go_to_the_simpler() -> None:
    def row(
        lr: float, decay: float, val: tuple[float, ...], *, warmup: int = 2, diverged: bool = False
    ) -> HeadRecord:
        return HeadRecord(
            lr=lr, weight_decay=decay, warmup_epochs=warmup, val=val, diverged=diverged
        )

    best = (3.0, 1.0, 1.0)
    table = [row(1e-3, 0.1, best), row(1e-4, 0.01, best), row(1e-4, 0.1, best)]
    assert choose("regression", table) == Chosen(head=2, epoch=1)
    assert choose("classification", table) == Chosen(head=2, epoch=0)
    assert choose("regression", [*table, row(1e-2, 0.0, (0.9,))]) == Chosen(head=3, epoch=0)
    earlier = [row(1e-4, 0.1, (3.0, 2.0, 1.0)), row(1e-4, 0.1, best, warmup=5), table[2]]
    assert choose("regression", earlier) == Chosen(head=2, epoch=1)
    assert choose("regression", [row(1.0, 1.0, (0.1,), diverged=True), table[0]]).head == 1
