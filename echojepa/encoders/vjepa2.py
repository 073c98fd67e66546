"""Published V-JEPA 2, 2.1 and EchoJEPA weights as frozen encoders, without importing them first.

The encoder is ours; a file is read as `echojepa import-weights` reads it, its predictor left alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from echojepa.encoders.ours import OurNetwork
from echojepa.encoders.source import NetworkEncoder, Source
from echojepa.models.encoder import VideoEncoder
from echojepa.models.formats.published import Branch, read_published
from echojepa.models.formats.shapes import encoder_config, input_clip


class VJepa2Source(Source):
    """V-JEPA 2, 2.1 or EchoJEPA: a `.pt` or `.safetensors` file, or a Hugging Face folder."""

    kind: Literal["vjepa2"] = "vjepa2"
    location = "weights"
    weights: str
    """The file, or the folder with `config.json` and its safetensors."""
    branch: Branch = "target"
    """Which encoder, where the file holds both."""
    num_frames: int | None = Field(None, gt=0)
    """Frames of the clips; null is what a folder says, or else 16."""
    fps: float = Field(8.0, gt=0)
    """Frame rate of the clips."""
    size: int | None = Field(None, gt=0)
    """Side of the clips in pixels; a Hugging Face folder says it, other files do not."""
    num_heads: int | None = Field(None, gt=0)
    """Attention heads; null is what a folder says, or else what the width tells."""

    def load(self) -> NetworkEncoder:
        """See `EncoderSource`.

        Raises:
            CheckpointError: the weights are missing, damaged, or of another architecture; or nobody
                says the size of the clips.
            ConfigError: the heads do not divide the width.
        """
        source = Path(self.weights)
        published = read_published(source)
        clip = input_clip(published, self.num_frames, self.fps, self.size, source)
        tensors = {
            name: tensor
            for name, tensor in published.encoder(self.branch, source).items()
            if not name.startswith("level_norms.")  # what pretraining alone supervises
        }
        config = encoder_config(tensors, published, self.num_heads, source)
        network = self.filled(lambda: VideoEncoder(config), tensors, self.weights)
        return NetworkEncoder(OurNetwork(network), clip, self.precision)
