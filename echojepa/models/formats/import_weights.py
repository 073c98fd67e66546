"""Published weights in: V-JEPA 2, 2.1 and EchoJEPA `.pt`, Hugging Face folders, timm's image ViTs.

Every tensor of the architecture must be found and every tensor found must be used, unless the
user names what may differ. What V-JEPA 2.1 holds for still images is left out and listed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from echojepa.config import Strict, to_tree, validate
from echojepa.errors import CheckpointError
from echojepa.models.attention import RotaryConfig
from echojepa.models.encoder import EncoderConfig, VideoEncoder
from echojepa.models.formats.dense import ENCODER_SIDE, PREDICTOR_ROTARY
from echojepa.models.formats.names import Tensors, num_mask_tokens
from echojepa.models.formats.published import Published, read_published
from echojepa.models.predictor import Predictor, PredictorConfig
from echojepa.models.weights import Companions, save_encoder

_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 22, 1664: 26}
"""Attention heads by width: shapes do not tell them."""
_PREDICTOR_HEADS = {384: 12}
_TUBELET = 2
_NUM_FRAMES = 16
_EVEN_DEPTHS = (4, 8, 12, 20, 24, 40)
"""Of V-JEPA 2.1 encoders whose four levels are evenly spaced; at 48 they are not."""


class ImportConfig(Strict):
    """What to take of a file, and what its shapes do not say."""

    command = "import-weights"

    branch: Literal["target", "online"] = "target"
    """Which encoder, where the file holds both."""
    num_heads: int | None = Field(None, gt=0)
    """Attention heads; null where the width tells."""
    predictor_heads: int | None = Field(None, gt=0)
    """The same of the predictor."""
    may_differ: tuple[str, ...] = ()
    """Patterns of names that may be missing, left over or of another shape, such as `head.*`."""
    num_frames: int | None = Field(None, gt=0)
    """Of the clips that evaluations show it; null is what the file says, or else 16."""
    fps: float = Field(8.0, gt=0)
    """Frame rate of these clips."""
    size: int | None = Field(None, gt=0)
    """Their side in pixels; a Hugging Face folder says it, other files do not. `transformers`
    derives the positions of tokens from it: another size gives other features there."""


@dataclass(frozen=True)
class ImportReport:
    """What became of the tensors of a file."""

    folder: Path
    num_loaded: int
    not_taken: list[str]
    """Tensors of the file that nothing uses."""
    stay_new: list[str]
    """Tensors of the architecture that the file lacks; they keep their initial values."""
    inflated: bool
    """A 2-D patch embedding was spread over the frames of a tubelet."""


def import_weights(source: Path, out: Path, options: ImportConfig) -> ImportReport:
    """Turn published weights into an encoder folder.

    Raises:
        CheckpointError: the file is missing, damaged, holds code, is not of this architecture, or
            differs in tensors that `may_differ` does not name; or nobody says the size of clips.
    """
    published = read_published(source)
    clip = _clip(published, options, source)
    chosen = published.online if options.branch == "online" else published.target
    if chosen is None:  # files of a single branch hold what there is
        chosen = published.online or published.target
    if not chosen:
        raise CheckpointError("the file holds no encoder", "Name a V-JEPA 2 file.", str(source))
    chosen, inflated = _inflated(chosen)
    config = _encoder_config(chosen, published, options, source)
    if config.num_levels > 1 and config.depth not in _EVEN_DEPTHS:
        raise CheckpointError(
            f"V-JEPA 2.1 of depth {config.depth} compares unevenly spaced blocks",
            "Import it without its predictor: one level.",
            str(source),
        )
    fit = _Fit(options.may_differ, source, published.left_out)
    encoder = fit.into(lambda: VideoEncoder(config), chosen, "")
    companions = None
    if published.predictor:
        small = _predictor_config(published, options, source)
        predictor = fit.into(lambda: Predictor(small, config), published.predictor, "predictor: ")
        online = published.online if options.branch == "target" and published.target else None
        if online is not None:
            online = fit.into(lambda: VideoEncoder(config), online, "online: ")
        companions = Companions(small, predictor, online)
    fit.raise_if_incomplete()
    card = _card(source, options, fit, inflated)
    save_encoder(out, config, encoder, clip, card, companions)
    return ImportReport(out, fit.num_loaded, fit.not_taken, fit.stay_new, inflated)


class _Fit:
    """Fits tensors into modules and keeps the account of what does not fit."""

    def __init__(
        self, may_differ: Sequence[str], source: Path, left_out: Sequence[str] = ()
    ) -> None:
        self._may_differ = may_differ
        self._source = source
        self._left_out = left_out
        self.num_loaded = 0
        self._missing: list[str] = []
        self._unexpected: list[str] = []
        self._mis_shaped: dict[str, str] = {}

    @property
    def not_taken(self) -> list[str]:
        """Tensors of the file that nothing uses."""
        return [*self._left_out, *self._unexpected, *self._mis_shaped]

    @property
    def stay_new(self) -> list[str]:
        """Tensors of the architecture that keep their initial values."""
        return [*self._missing, *self._mis_shaped]

    def into(self, build: Callable[[], nn.Module], found: Tensors, label: str) -> Tensors:
        """The state dict of the module that `build` makes, filled with what fits.

        The module is built in earnest only if some of its initial values are needed.
        """
        with torch.device("meta"):
            wanted = build().state_dict()
        self._unexpected += [label + name for name in sorted(set(found) - set(wanted))]
        new = []
        for name in sorted(wanted):
            if name not in found:
                self._missing.append(label + name)
            elif wanted[name].shape != found[name].shape:
                shapes = f"{tuple(found[name].shape)}, not {tuple(wanted[name].shape)}"
                self._mis_shaped[label + name] = shapes
            else:
                wanted[name] = found[name].float()
                self.num_loaded += 1
                continue
            new.append(name)
        if new and all(self._named(name) for name in new):
            initial = build().state_dict()
            wanted |= {name: initial[name] for name in new}
        return wanted

    def raise_if_incomplete(self) -> None:
        """Raise `CheckpointError` for everything that the user has not named."""
        problems = {
            "missing": [n for n in self._missing if not self._named(n)],
            "unexpected": [n for n in self._unexpected if not self._named(n)],
            "of another shape": [
                f"{n}: {shapes}" for n, shapes in self._mis_shaped.items() if not self._named(n)
            ],
        }
        if any(problems.values()):
            listed = "; ".join(f"{kind}: {', '.join(n)}" for kind, n in problems.items() if n)
            raise CheckpointError(
                f"only {self.num_loaded} tensors fit; {listed}",
                "Name what may be missing, left over or new with may_differ=[PATTERN,...].",
                str(self._source),
            )

    def _named(self, name: str) -> bool:
        return any(fnmatch(name.rpartition(": ")[2], pattern) for pattern in self._may_differ)


def _clip(published: Published, options: ImportConfig, source: Path) -> dict[str, Any]:
    """Number of frames, rate and size of the clips that the encoder is made for."""
    size = options.size or published.size
    if size is None:
        raise CheckpointError(
            "the file does not say the size of its clips",
            "Set size=PIXELS, as it was trained (V-JEPA 2: 256, giant also 384; EchoJEPA: 224 for "
            "large, 336 for giant).",
            str(source),
        )
    return {
        "num_frames": options.num_frames or published.num_frames or _NUM_FRAMES,
        "fps": options.fps,
        "size": size,
    }


def _inflated(encoder: Tensors) -> tuple[Tensors, bool]:
    """An image ViT's patch projection [D, 3, p, p], spread evenly over the frames of a tubelet."""
    key = "patch_embed.proj.weight"
    if key not in encoder or encoder[key].ndim != 4:
        return encoder, False
    spread = encoder[key][:, :, None].repeat(1, 1, _TUBELET, 1, 1) / _TUBELET
    return {**encoder, key: spread}, True


def _encoder_config(
    tensors: Tensors, published: Published, options: ImportConfig, source: Path
) -> EncoderConfig:
    num_heads = options.num_heads or published.heads[0]
    try:
        width, _, tubelet, patch, _ = tensors["patch_embed.proj.weight"].shape
        hidden = tensors["blocks.0.mlp.fc1.weight"].shape[0]
    except (KeyError, ValueError):
        raise CheckpointError(
            "the tensors are not those of a video ViT", "Use V-JEPA 2 weights.", str(source)
        ) from None
    tree = {
        "width": width,
        "depth": _depth(tensors, "blocks"),
        "num_heads": _heads(num_heads, _HEADS, width, "num_heads", source),
        "mlp_ratio": hidden / width,
        "patch_size": patch,
        "tubelet_size": tubelet,
        "num_levels": 1 + len({n.split(".")[1] for n in tensors if n.startswith("level_norms.")}),
        "rotary": to_tree(_encoder_rotary(published, patch)),
    }
    return validate(tree, EncoderConfig, str(source))


def _encoder_rotary(published: Published, patch: int) -> RotaryConfig:
    if not published.dense:
        return RotaryConfig()
    return RotaryConfig(frequencies="paired", span=ENCODER_SIDE // patch)


def _predictor_config(published: Published, options: ImportConfig, source: Path) -> PredictorConfig:
    tensors = published.predictor or {}
    num_heads = options.predictor_heads or published.heads[1]
    try:
        width = tensors["predictor_norm.weight"].shape[0]
        hidden = tensors["predictor_blocks.0.mlp.fc1.weight"].shape[0]
    except KeyError as error:
        raise CheckpointError(
            f"the predictor lacks {error}", "Use V-JEPA 2 weights.", str(source)
        ) from None
    tree = {
        "width": width,
        "depth": _depth(tensors, "predictor_blocks"),
        "num_heads": _heads(num_heads, _PREDICTOR_HEADS, width, "predictor_heads", source),
        "mlp_ratio": hidden / width,
        "num_mask_tokens": num_mask_tokens(tensors) or 1,
        "context_head": "predictor_proj_context.weight" in tensors,
        "rotary": to_tree(PREDICTOR_ROTARY if published.dense else RotaryConfig()),
    }
    return validate(tree, PredictorConfig, str(source))


def _depth(tensors: Tensors, blocks: str) -> int:
    numbers = [n.split(".")[1] for n in tensors if n.startswith(f"{blocks}.")]
    return 1 + max((int(n) for n in numbers if n.isdigit()), default=0)


def _heads(given: int | None, known: dict[int, int], width: int, option: str, source: Path) -> int:
    if given is None and width not in known:
        raise CheckpointError(
            f"the number of attention heads of width {width} is not known",
            f"Set {option}=N.",
            str(source),
        )
    return given or known[width]


def _card(source: Path, options: ImportConfig, fit: _Fit, inflated: bool) -> str:
    notes = [f"{fit.num_loaded} tensors taken over from `{source.name}`, branch {options.branch}."]
    if inflated:
        notes.append(f"The 2-D patch embedding was spread over {_TUBELET} frames, divided by it.")
    if fit.not_taken:
        notes.append(f"Not taken over: {', '.join(fit.not_taken)}.")
    if fit.stay_new:
        notes.append(f"Left at their initial values: {', '.join(fit.stay_new)}.")
    listed = "\n".join(f"- {note}" for note in notes)
    return f"""# Imported video encoder

Imported, not trained here: its origin, data and licence are those of the published weights.

**Research use only. This is not a medical device.**

{listed}
"""
