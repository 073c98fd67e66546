"""What the tensors of a file tell of a video ViT, and what has to be said beside them.

The names are those of V-JEPA 2, VideoMAE and EchoFM alike: `patch_embed.proj`, `blocks.N.mlp.fc1`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from echojepa.config import to_tree, validate
from echojepa.data.sampling import ClipConfig
from echojepa.errors import CheckpointError
from echojepa.models.attention import RotaryConfig
from echojepa.models.encoder import EncoderConfig
from echojepa.models.formats.dense import ENCODER_SIDE
from echojepa.models.formats.names import Tensors
from echojepa.models.formats.published import Published

HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 22, 1664: 26}
"""Attention heads by width: shapes do not tell them."""
_NUM_FRAMES = 16


@dataclass(frozen=True)
class VitShape:
    """The size of a video ViT as far as its tensors show it."""

    width: int
    depth: int
    hidden: int
    """Width inside the MLP."""
    patch_size: int
    tubelet_size: int

    @classmethod
    def of(cls, tensors: Tensors, model: str, source: Path) -> VitShape:
        """The size of an encoder; `model` and `source` are for errors.

        Raises:
            CheckpointError: there is no patch projection, or no first block.
        """
        try:
            width, _, tubelet, patch, _ = tensors["patch_embed.proj.weight"].shape
            hidden = tensors["blocks.0.mlp.fc1.weight"].shape[0]
        except (KeyError, ValueError, IndexError):
            raise CheckpointError(
                "the tensors are not those of a video ViT", f"Use {model} weights.", str(source)
            ) from None
        return cls(width, num_blocks(tensors, "blocks"), hidden, patch, tubelet)


def num_blocks(tensors: Tensors, prefix: str) -> int:
    """One more than the highest block number under a prefix."""
    numbers = [n.split(".")[1] for n in tensors if n.startswith(f"{prefix}.")]
    return 1 + max((int(n) for n in numbers if n.isdigit()), default=0)


def heads_of(given: int | None, known: dict[int, int], width: int, key: str, source: Path) -> int:
    """Attention heads as somebody says them, or as a table by width does.

    Raises:
        CheckpointError: neither; it asks for the setting `key`.
    """
    if given is None and width not in known:
        raise CheckpointError(
            f"the number of attention heads of width {width} is not known",
            f"Set {key}=N.",
            str(source),
        )
    return given or known[width]


def encoder_config(
    tensors: Tensors, published: Published, num_heads: int | None, source: Path
) -> EncoderConfig:
    """The architecture of a V-JEPA 2 or 2.1 encoder; `num_heads` overrules what the file says.

    Raises:
        CheckpointError: the tensors are of something else, or nobody says the heads.
    """
    shape = VitShape.of(tensors, "V-JEPA 2", source)
    given = num_heads or published.heads[0]
    tree = {
        "width": shape.width,
        "depth": shape.depth,
        "num_heads": heads_of(given, HEADS, shape.width, "num_heads", source),
        "mlp_ratio": shape.hidden / shape.width,
        "patch_size": shape.patch_size,
        "tubelet_size": shape.tubelet_size,
        "num_levels": 1 + len({n.split(".")[1] for n in tensors if n.startswith("level_norms.")}),
        "rotary": to_tree(_rotary(published, shape.patch_size)),
    }
    return validate(tree, EncoderConfig, str(source))


def _rotary(published: Published, patch: int) -> RotaryConfig:
    if not published.dense:
        return RotaryConfig()
    return RotaryConfig(frequencies="paired", span=ENCODER_SIDE // patch)


def input_clip(
    published: Published, num_frames: int | None, fps: float, size: int | None, source: Path
) -> ClipConfig:
    """The clips that a V-JEPA encoder is made for; what is given overrules what the file says.

    Raises:
        CheckpointError: nobody says the size.
    """
    size = size or published.size
    if size is None:
        raise CheckpointError(
            "the file does not say the size of its clips",
            "Set size=PIXELS, as it was trained (V-JEPA 2: 256, giant also 384; EchoJEPA: 224 for "
            "large, 336 for giant).",
            str(source),
        )
    return ClipConfig(
        num_frames=num_frames or published.num_frames or _NUM_FRAMES, fps=fps, size=size
    )
