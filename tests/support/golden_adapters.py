"""Encoders of other people: weights and clips by formula, and the outputs that belong to them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from support.paths import DATA

Entry = tuple[str, list[int], str, str]
"""Name, shape, dtype and rule of a tensor."""


def load_case(name: str) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    """What a file of weights holds, and what the encoder gives."""
    folder = DATA / "adapters"
    with np.load(folder / f"{name}.npz") as outputs:
        return json.loads((folder / f"{name}.json").read_text()), dict(outputs)


def state_dict(entries: Iterable[Entry], rules: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of a file, by their full names."""
    return {
        name: torch.from_numpy(
            _sincos(*shape[1:]) if rule == "sincos" else _wave(name, shape, rules[rule])
        )
        for name, shape, _, rule in entries
    }


def clip(kind: str, frames: int, height: int, width: int) -> NDArray[np.uint8]:
    """uint8 RGB [T, H, W, 3]; kind A or B."""
    t, y, x, c = np.ogrid[:frames, :height, :width, :3]
    value = 7 * t + 3 * y + 5 * x + 11 * c if kind == "A" else t * t + 4 * y + 3 * x + 50 * c
    return (value % 256).astype(np.uint8)


def _wave(name: str, shape: list[int], rule: dict[str, float]) -> NDArray[np.float32]:
    k = (np.arange(int(np.prod(shape))) % 9973).astype(np.float64)
    phase = sum(name.encode()) % 628 / 100
    value = rule["offset"] + rule["scale"] * np.sin(0.1 * k + rule["quad"] * (k * k) + phase)
    return value.astype(np.float32).reshape(shape)


def _sincos(num_positions: int, width: int) -> NDArray[np.float32]:
    angles = np.arange(num_positions)[:, None] * 10000.0 ** (-np.arange(0, width, 2) / width)
    table = np.stack([np.sin(angles), np.cos(angles)], -1)
    return table.reshape(1, num_positions, width).astype(np.float32)
