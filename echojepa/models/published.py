"""Files of published weights, read into our names. Nothing in a file is ever executed."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from echojepa.errors import CheckpointError
from echojepa.models.layouts import Tensors, from_huggingface, without_wrappers

_TARGETS = ("target_encoder", "ema_encoder")
_DAMAGE = (
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    SafetensorError,
    zipfile.BadZipFile,
)
"""What reading a damaged file may raise: the restricted unpickler checks little by itself."""


class Published:
    """The branches of a file, in our names; what it lacks is None."""

    def __init__(self, content: dict[str, Any], heads: tuple[int | None, int | None]) -> None:
        nested = {k: v for k, v in content.items() if isinstance(v, dict)}
        target = next((nested[key] for key in _TARGETS if key in nested), None)
        if target is None and "encoder" not in nested:
            flat = {k: v for k, v in content.items() if isinstance(v, torch.Tensor)}
            nested = {"encoder": flat}
        self.target = None if target is None else without_wrappers(target)
        self.online = without_wrappers(nested["encoder"]) if "encoder" in nested else None
        predictor = nested.get("predictor")
        self.predictor = None if predictor is None else without_wrappers(predictor)
        self.heads = heads


def read_published(source: Path) -> Published:
    """Read a `.pt` or `.safetensors` file or a Hugging Face folder.

    `.pt` files are read with `weights_only=True`, which builds tensors and plain containers only.

    Raises:
        CheckpointError: it is missing or damaged, or holds something that only code could build.
    """
    if source.is_dir():
        return _read_huggingface(source)
    try:
        if source.suffix == ".safetensors":
            return Published(dict(load_file(source)), (None, None))
        if not zipfile.is_zipfile(source):
            source.open("rb").close()
            raise CheckpointError(
                "not an archive that torch.save wrote",
                "Save it again by torch 1.6 or newer.",
                str(source),
            )
        content = torch.load(source, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError("no such file", "Check the path.", str(source)) from None
    except UnpicklingError:
        raise CheckpointError(
            "the file is damaged, or holds more than tensors; code in it is never run",
            "Use a file of plain tensors.",
            str(source),
        ) from None
    except _DAMAGE as error:
        raise CheckpointError(
            f"the file cannot be read ({type(error).__name__})", "Fetch it again.", str(source)
        ) from None
    if not isinstance(content, dict):
        raise CheckpointError("the file holds no state dict", "Use another.", str(source))
    return Published(content, (None, None))


def _read_huggingface(folder: Path) -> Published:
    """A `transformers.VJEPA2Model` folder, in one file or sharded."""
    try:
        config = json.loads((folder / "config.json").read_text())
        if config.get("model_type") != "vjepa2":
            raise KeyError("model_type")
        index = folder / "model.safetensors.index.json"
        names = {"model.safetensors"}
        if index.is_file():
            names = set(json.loads(index.read_text())["weight_map"].values())
        tensors: Tensors = {}
        for name in sorted(names):
            tensors |= load_file(folder / name)
        heads = config["num_attention_heads"], config["pred_num_attention_heads"]
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError) as error:
        raise CheckpointError(
            f"not a whole Hugging Face V-JEPA 2 folder ({type(error).__name__})",
            "Name a folder with config.json of model_type vjepa2 and its model.safetensors.",
            str(folder),
        ) from None
    encoder, predictor = from_huggingface(tensors)
    published = Published({}, heads)
    published.online, published.predictor = encoder, predictor or None
    return published
