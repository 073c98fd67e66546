"""Published weights in: V-JEPA 2, 2.1 and EchoJEPA `.pt`, Hugging Face folders, timm's image ViTs.

Every tensor of the architecture must be found and every tensor found must be used, unless the
user names what may differ. What V-JEPA 2.1 holds for still images is left out and listed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import torch
from pydantic import Field
from torch import nn

from echojepa.config import Strict, to_tree, validate
from echojepa.errors import CheckpointError
from echojepa.models.attention import RotaryConfig
from echojepa.models.encoder import VideoEncoder
from echojepa.models.formats.dense import PREDICTOR_ROTARY
from echojepa.models.formats.names import Tensors, num_mask_tokens
from echojepa.models.formats.published import Branch, Published, read_published
from echojepa.models.formats.shapes import encoder_config, heads_of, input_clip, num_blocks
from echojepa.models.predictor import Predictor, PredictorConfig
from echojepa.models.weights import Companions, save_encoder

_PREDICTOR_HEADS = {384: 12}
_TUBELET = 2
_EVEN_DEPTHS = (4, 8, 12, 20, 24, 40)
"""Of V-JEPA 2.1 encoders whose four levels are evenly spaced; at 48 they are not."""


class ImportConfig(Strict):
    """What to take of a file, and what its shapes do not say."""

    command = "import-weights"

    branch: Branch = "target"
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
    clip = input_clip(published, options.num_frames, options.fps, options.size, source)
    chosen, inflated = _inflated(published.encoder(options.branch, source))
    config = encoder_config(chosen, published, options.num_heads, source)
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
    shown = clip.model_dump(include={"num_frames", "fps", "size"})
    save_encoder(out, config, encoder, shown, card, companions)
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


def _inflated(encoder: Tensors) -> tuple[Tensors, bool]:
    """An image ViT's patch projection [D, 3, p, p], spread evenly over the frames of a tubelet."""
    key = "patch_embed.proj.weight"
    if key not in encoder or encoder[key].ndim != 4:
        return encoder, False
    spread = encoder[key][:, :, None].repeat(1, 1, _TUBELET, 1, 1) / _TUBELET
    return {**encoder, key: spread}, True


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
        "depth": num_blocks(tensors, "predictor_blocks"),
        "num_heads": heads_of(num_heads, _PREDICTOR_HEADS, width, "predictor_heads", source),
        "mlp_ratio": hidden / width,
        "num_mask_tokens": num_mask_tokens(tensors) or 1,
        "context_head": "predictor_proj_context.weight" in tensors,
        "rotary": to_tree(PREDICTOR_ROTARY if published.dense else RotaryConfig()),
    }
    return validate(tree, PredictorConfig, str(source))


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
