"""What a finished run has exported."""

from __future__ import annotations

import torch

from echojepa.models.weights import load_encoder
from echojepa.runs.checkpoint import folder_of
from echojepa.runs.folder import RunFolder
from echojepa.runs.shards import ShardReader


def card_of_encoder(folder: RunFolder, last_step: int) -> str:
    """The model card, once it is sure that the last checkpoint's encoder is what was exported.

    Objectives without an average: the checkpoint holds no target.
    """
    with ShardReader(folder_of(folder.checkpoints, last_step)) as reader:
        assert not [key for key in reader.shapes if "target" in key]
        for name, weight in load_encoder(folder.encoder).state_dict().items():
            assert torch.equal(weight, reader.whole(f"weight/encoder.{name}"))
    return (folder.encoder / "README.md").read_text()
