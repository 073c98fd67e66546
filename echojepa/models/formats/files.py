"""Files of weights, whoever wrote them: read without running anything that is in them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from echojepa.errors import CheckpointError

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
    containers only.

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


def read_tensors(source: Path, wrapper: str | None = None) -> dict[str, torch.Tensor]:
    """The state dict of a file; with `wrapper`, the one under this key, if the file has the key.

    Raises:
        CheckpointError: see `read_content`; or there is not one tensor.
    """
    content = read_content(source)
    if wrapper is not None and isinstance(content.get(wrapper), dict):
        content = content[wrapper]
    tensors = {name: t for name, t in content.items() if isinstance(t, torch.Tensor)}
    if not tensors:
        raise CheckpointError("the file holds no tensors", "Use another.", str(source))
    return tensors
