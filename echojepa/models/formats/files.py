"""Files of weights, whoever wrote them: read without running anything that is in them."""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from echojepa.errors import CheckpointError
from echojepa.models.formats.names import Tensors

Config = TypeVar("Config", bound="FolderConfig")
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


def read_content(source: Path) -> dict[str, Any]:
    """What a `.pt`, `.pth` or `.safetensors` file holds.

    Files of `torch.save` are read with `weights_only=True`, which builds tensors and plain
    containers only; and the record of a command's arguments, which many training programs put
    beside the weights.

    Raises:
        CheckpointError: it is missing or damaged, or holds something that only code could build.
    """
    if not source.exists():
        raise CheckpointError("no such file", "Check the path.", str(source))
    try:
        if source.suffix == ".safetensors":
            return dict(load_file(source))
        if not zipfile.is_zipfile(source):
            raise CheckpointError(
                "not an archive that torch.save wrote",
                "Save it again by torch 1.6 or newer.",
                str(source),
            )
        with torch.serialization.safe_globals([argparse.Namespace]):  # a dict with dots
            content = torch.load(source, map_location="cpu", weights_only=True, mmap=True)
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
    return content


def read_tensors(source: Path, *wrappers: str) -> Tensors:
    """The state dict of a file; with `wrappers`, the one under the first of these keys it has.

    Raises:
        CheckpointError: see `read_content`; or there is not one tensor.
    """
    content = read_content(source)
    inside = (content[key] for key in wrappers if isinstance(content.get(key), dict))
    content = next(inside, content)
    tensors = {name: t for name, t in content.items() if isinstance(t, torch.Tensor)}
    if not tensors:
        raise CheckpointError("the file holds no tensors", "Use another.", str(source))
    return tensors


class FolderConfig(BaseModel):
    """What is read of the `config.json` of a Hugging Face folder; its other keys are left alone."""

    model: ClassVar[str]
    """Name of the model, for errors."""


def read_huggingface(folder: Path, kind: type[Config]) -> tuple[Config, Tensors]:
    """A folder that `save_pretrained` of transformers wrote, its tensors in one file or sharded.

    Raises:
        CheckpointError: a file is missing or damaged, or `config.json` is not of this kind.
    """
    index = folder / "model.safetensors.index.json"
    tensors: Tensors = {}
    try:
        config = kind.model_validate_json((folder / "config.json").read_bytes())
        names = {"model.safetensors"}
        if index.is_file():
            names = set(json.loads(index.read_text())["weight_map"].values())
        for name in sorted(names):
            tensors |= load_file(folder / name)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, SafetensorError) as error:
        reason = type(error).__name__
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = f"config.json: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise CheckpointError(
            f"not a whole Hugging Face {kind.model} folder ({reason})",
            "Name a folder with its config.json and its model.safetensors.",
            str(folder),
        ) from None
    return config, tensors
