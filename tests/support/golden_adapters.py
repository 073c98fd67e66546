"""Published encoders' outputs for weights and clips that formulas give; see tests/data/adapters.

A case is NAME.json (layout of the state dict, rules, check values, preprocessing) and NAME.npz
(what the published code computed). No weights are stored: every tensor follows from its name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from support.paths import DATA

FOLDER = DATA / "adapters"


def load_case(name: str) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    """Description and outputs of a case."""
    spec = json.loads((FOLDER / f"{name}.json").read_text())
    return spec, dict(np.load(FOLDER / f"{name}.npz"))


def state_dict(
    entries: Sequence[tuple[str, Sequence[int], str, str]],
    rules: Mapping[str, Any],
    checks: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, torch.Tensor]:
    """The tensors of a layout.

    Args:
        entries: name, shape, dtype and rule of every tensor.
        rules: offset, scale and quad of every rule; `sincos` has none.
        checks: sum, first and last value of every tensor, to hold what was made against.
    """
    found = {}
    for name, shape, dtype, rule in entries:
        values = sincos(*shape[1:]) if rule == "sincos" else tensor(name, shape, rules[rule])
        assert values.dtype == dtype and values.shape == tuple(shape)
        found[name] = torch.from_numpy(values)
    for name, (total, first, last) in (checks or {}).items():
        flat = found[name].double().flatten()
        made = (flat.sum().item(), flat[0].item(), flat[-1].item())
        np.testing.assert_allclose(made, (total, first, last), rtol=0, atol=1e-5, err_msg=name)
    return found


def tensor(name: str, shape: Sequence[int], rule: Mapping[str, float]) -> NDArray[np.float32]:
    """One tensor: a sine over its elements whose phase is its whole name's."""
    k = (np.arange(int(np.prod(shape))) % 9973).astype(np.float64)
    phase = sum(name.encode()) % 628 / 100
    values = rule["offset"] + rule["scale"] * np.sin(0.1 * k + rule["quad"] * (k * k) + phase)
    return np.asarray(values, np.float32).reshape(shape)


def sincos(length: int, width: int) -> NDArray[np.float32]:
    """Sines in even and cosines in odd columns, [1, length, width]."""
    angles = np.arange(length)[:, None] * 10_000.0 ** (-np.arange(0, width, 2) / width)
    table = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    return np.asarray(table, np.float32).reshape(1, length, width)


def clip(kind: str, frames: int, height: int, width: int) -> NDArray[np.uint8]:
    """A clip [T, H, W, 3]; kind A is linear in time, every other kind quadratic."""
    t, y, x, c = np.ogrid[:frames, :height, :width, :3]
    linear = 7 * t + 3 * y + 5 * x + 11 * c
    values = linear if kind == "A" else t * t + 4 * y + 3 * x + 50 * c
    return np.asarray(values % 256, np.uint8)
